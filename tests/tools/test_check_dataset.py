"""tools/check_dataset.py: what it prints and its exit status."""

import json

import pytest

from mmgn.datasets.digits import make_digits

CONFIG = "digits/mask-rcnn_r18-mini_fpn_fusedgn-all_digits.py"


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("check")
    return cwd, make_digits(cwd / "data/digits", num_train=4, num_val=3)


def spoilt(digits, tmp_path):
    content = json.loads(digits.val_annotations.read_text())
    content["annotations"][0]["bbox"][2] = -5
    content["annotations"][1]["category_id"] = 99
    content["images"][2]["file_name"] = "gone.jpg"
    (tmp_path / "spoilt.json").write_text(json.dumps(content))
    return tmp_path / "spoilt.json"


def test_a_config_is_clean(digits, call_tool):
    status, output = call_tool(digits[0], "check_dataset.py", "--config", CONFIG, "--decode", "--jobs", 1)
    assert status == 0, output
    # Test is val's.
    assert output.count("clean: no errors, no warnings") == 2
    assert "images: 4" in output
    assert "images: 3" in output


def test_errors_are_counted_and_written(digits, call_tool, tmp_path):
    ann_file = spoilt(digits[1], tmp_path)
    status, output = call_tool(
        tmp_path, "check_dataset.py", ann_file, "--img-dir", digits[1].val, "--json", tmp_path / "out.json"
    )
    assert status == 1, output
    (found,) = json.loads((tmp_path / "out.json").read_text())
    assert found["counts"] == {"box_negative": 1, "unknown_category": 1, "missing_image": 1}
    assert "3 errors, 0 warnings" in output
    assert "image 3, 'gone.jpg': no " in output


def test_classes_and_data_root_of_a_config(digits, call_tool, tmp_path):
    args = ["--config", CONFIG, "--split", "val", "--data-root", digits[1].root, "--cfg-options"]
    status, output = call_tool(tmp_path, "check_dataset.py", *args, "val_dataloader.dataset.metainfo.classes=('zero',)")
    assert status == 0, output
    assert "warning: 9 unused_category" in output
    status, output = call_tool(tmp_path, "check_dataset.py", *args, "val_dataloader.dataset.metainfo.classes=('cat',)")
    assert status == 1, output
    assert "error: 1 no_common_class" in output


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "give either an annotation file or --config"),
        (["data/digits/annotations/instances_val.json", "--img-dir", "none"], "no folder none"),
        (["--config", CONFIG, "--data-root", "none"], "no annotation file none/annotations/instances_train.json"),
        (["--config", "_base_/mmgn.py"], "has no data set in COCO's format"),
    ],
)
def test_wrong_usage_ends_with_2(digits, call_tool, args, said):
    status, output = call_tool(digits[0], "check_dataset.py", *args)
    assert status == 2, output
    assert said in output
    assert "Traceback" not in output
