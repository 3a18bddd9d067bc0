"""tools/eval_results.py on what tools/test.py saved."""

import json
import pickle

import pytest
import torch

pytest.importorskip("mmdet")
pytest.importorskip("faster_coco_eval")

CONFIG = "digits/mask-rcnn_r18-mini_fpn_fusedgn-all_digits.py"
TRUTH = "data/digits/annotations/instances_val.json"


def figures(call_tool, cwd, out, *args):
    status, output = call_tool(cwd, "eval_results.py", *args, "--out", out)
    assert status == 0, output
    return json.loads(out.read_text()), output


def test_figures_are_those_of_the_test(fitted, saved, tmp_path, call_tool):
    logged = json.loads((saved / "run.json").read_text())["evaluation"]["metrics"]
    from_json, output = figures(call_tool, fitted, tmp_path / "json", saved / "predictions", "--ann-file", TRUTH)
    from_pickle, _ = figures(call_tool, fitted, tmp_path / "new/pkl", saved / "out.pkl", "--config", CONFIG)
    for kind in ("bbox", "segm"):
        assert from_json[kind] == from_pickle[kind]
        for name in ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m"):
            value = from_json[kind][name]
            # mmdet rounds.
            assert value == pytest.approx(logged[f"coco/{kind}_{name}"], abs=5.1e-4)
            assert f"{value:.4f}" in output
        assert from_json[kind]["mAP_50"] > 0.2
        assert from_json[kind]["mAP_l"] is None
        assert len(from_json[kind]["per_class"]) == 10


def test_one_file_is_judged_by_what_it_is_for(fitted, saved, tmp_path, call_tool):
    found, output = figures(call_tool, fitted, tmp_path / "o", saved / "predictions.segm.json", "--ann-file", TRUTH)
    assert "bbox" not in found
    assert found["segm"]["mAP"] > 0.1
    assert "in 4 of the 4 images" in output


def test_a_config_chooses_the_classes(fitted, saved, tmp_path, call_tool):
    """Labels of a model of some classes are positions among those, in the order of the file."""
    truth = json.loads((fitted / TRUTH).read_text())
    truth["categories"].insert(0, {"id": 99, "name": "other"})
    (fitted / "more.json").write_text(json.dumps(truth))
    few = [saved / "out.pkl", "--ann-file", "more.json", "--config", CONFIG]
    same, _ = figures(call_tool, fitted, tmp_path / "a", *few)
    plain, _ = figures(call_tool, fitted, tmp_path / "b", saved / "out.pkl", "--ann-file", TRUTH)
    assert same["bbox"] == plain["bbox"]
    shifted, _ = figures(call_tool, fitted, tmp_path / "c", saved / "out.pkl", "--ann-file", "more.json")
    assert shifted["bbox"]["mAP"] < 0.5 * plain["bbox"]["mAP"]


class Gadget:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("predictions", "said"),
    [
        ("nowhere", "no predictions: neither nowhere is a file"),
        ("other.pkl", "1 of the 1 images predicted are not among the 4 of the annotations (such as img_id 77)"),
        ("classes.pkl", "label 10 in image 1 is of a model with more than 10 classes"),
        ("sizes.pkl", "masks of image 1 are of height and width [9, 9], and the image [160, 160]"),
        ("counts.pkl", "1 of 1 results have masks whose counts are not COCO's compressed run lengths"),
        ("panoptic.pkl", "entry 0 has no img_id or no pred_instances"),
        ("gadget.pkl", "it asks for posix.system, which may run code"),
        ("cut.pkl", "cut.pkl is damaged or no pickle"),
        ("other.json", "1 of its 1 different image_id are not in"),
    ],
)
def test_what_cannot_be_judged_is_told_in_one_line(fitted, call_tool, predictions, said):
    def sample(img_id=1, label=0, **more):
        boxes = {"bboxes": torch.ones(1, 4), "scores": torch.ones(1), "labels": torch.tensor([label])}
        return {"img_id": img_id, "pred_instances": boxes | more}

    content = {
        "other.pkl": [sample(77)],
        "classes.pkl": [sample(label=10)],
        "sizes.pkl": [sample(masks=[{"size": [9, 9], "counts": b"Q31"}])],
        "counts.pkl": [sample(masks=[{"size": [160, 160], "counts": [0, 25600]}])],
        "panoptic.pkl": [{"img_id": 1, "pred_panoptic_seg": 1}],
        "gadget.pkl": [sample(), Gadget(__import__("os").system, "touch ran")],
        "cut.pkl": [sample()],
        "other.json": [{"image_id": 77, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1}],
    }.get(predictions)
    if content is not None:
        raw = json.dumps(content).encode() if predictions.endswith(".json") else pickle.dumps(content, 2)
        (fitted / predictions).write_bytes(raw[:-50] if predictions == "cut.pkl" else raw)
    status, output = call_tool(fitted, "eval_results.py", predictions, "--ann-file", TRUTH)
    assert status == 1
    assert output.startswith("eval_results.py: ")
    assert said in output
    assert not (fitted / "ran").exists()


def test_annotations_are_asked_for(fitted, call_tool):
    status, output = call_tool(fitted, "eval_results.py", "out.pkl")
    assert status == 2
    assert "--ann-file, or --config" in output
