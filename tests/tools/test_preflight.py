"""tools/train.py stops at data that are not fit, in one line, unless it is told not to look."""

import json

import pytest

from mmgn.datasets.digits import make_digits

CONFIG = "digits/mask-rcnn_r18-mini_fpn_fusedgn-all_digits.py"


@pytest.fixture
def spoilt(tmp_path):
    digits = make_digits(tmp_path / "digits", num_train=4, num_val=2)
    content = json.loads(digits.train_annotations.read_text())
    content["annotations"][0]["category_id"] = 99
    digits.train_annotations.write_text(json.dumps(content))
    return tmp_path


def test_unfit_data_stop_a_training_and_a_switch_lets_it_go_on(spoilt, call_tool):
    args = ["train.py", CONFIG, "--data-root", "digits", "--dry-run"]
    status, output = call_tool(spoilt, *args)
    assert status == 1
    assert "train.py: digits/annotations/instances_train.json (train_dataloader.dataset.ann_file)" in output
    assert "1 unknown_category (annotation 1 of image 1 ('000001.jpg'): category_id 99)" in output
    status, output = call_tool(spoilt, *args, "--skip-preflight")
    assert status == 0, output
    assert "pre-flight" not in output
    assert "losses" in output


def test_what_was_checked_is_told(spoilt, call_tool):
    make_digits(spoilt / "sound", num_train=4, num_val=2)
    status, output = call_tool(spoilt, "train.py", CONFIG, "--data-root", "sound/", "--dry-run")
    assert status == 0, output
    assert "pre-flight:\nsound/annotations/instances_train.json: 4 images" in output
    # The dry run's table is enough.
    assert output.count("norms: 36 (36 FusedGN)") == 1
