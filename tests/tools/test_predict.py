"""tools/predict.py, and mmdet's own DetInferencer, on the digits that the model was fitted to."""

import json

import cv2
import numpy as np
import pytest
import torch

# Before mmdet, which needs the ops that mmgn provides.
from mmgn.engine.config import find_config

pytest.importorskip("mmdet")
rle = pytest.importorskip("pycocotools.mask")

CONFIG = "digits/mask-rcnn_r18-mini_fpn_fusedgn-all_digits.py"
TRUTH = "data/digits/annotations/instances_val.json"
IMAGES = "data/digits/val"


def results_of(saved, kind):
    return json.loads((saved / f"predictions.{kind}.json").read_text())


def assert_same(found, expected):
    """Compare masks and scores of COCO results, images in any order; batches of another size round otherwise."""
    order = lambda entry: (entry["image_id"], entry["category_id"], -entry["score"])  # noqa: E731
    for one, other in zip(sorted(found, key=order), sorted(expected, key=order), strict=True):
        assert (one["image_id"], one["category_id"]) == (other["image_id"], other["category_id"])
        assert one["score"] == pytest.approx(other["score"], abs=1e-4)
        assert one["bbox"] == pytest.approx(other["bbox"], abs=1e-2)
        pixels = rle.decode(one["segmentation"]) != rle.decode(other["segmentation"])
        assert pixels.mean() < 1e-3


def test_results_are_those_of_the_test_and_are_painted(fitted, saved, tmp_path, call_tool):
    flags = ["--out", tmp_path, "--batch-size", 3, "--ann-file", TRUTH, "--score-thr", 0.2]
    status, output = call_tool(fitted, "predict.py", CONFIG, "fitted.pth", IMAGES, *flags)
    assert status == 0, output
    assert "4 images predicted" in output
    found = json.loads((tmp_path / "predictions.json").read_text())
    assert len(found) > 20
    assert_same(found, results_of(saved, "segm"))

    known = json.loads((fitted / TRUTH).read_text())
    images = json.loads((tmp_path / "images.json").read_text())
    assert images["images"] == [{key: each[key] for key in images["images"][0]} for each in known["images"]]
    assert images["categories"] == [{key: each[key] for key in ("id", "name")} for each in known["categories"]]
    for entry in images["images"]:
        painted, plain = (
            cv2.imread(str(folder / entry["file_name"])) for folder in (tmp_path / "pictures", fitted / IMAGES)
        )
        changed = np.abs(painted.astype(int) - plain).max(axis=2) > 60
        boxes = [each["bbox"] for each in found if each["image_id"] == entry["id"] and each["score"] > 0.2]
        for x, y, width, height in boxes:
            assert changed[max(round(y), 0) : round(y + height) + 1, max(round(x), 0) : round(x + width) + 1].any()
        assert bool(changed.any()) == bool(boxes)

    judged = call_tool(fitted, "eval_results.py", tmp_path / "predictions.json", "--ann-file", TRUTH)
    again = call_tool(fitted, "eval_results.py", saved / "predictions", "--ann-file", TRUTH)
    rows = [
        [line.split() for line in output.splitlines() if line.startswith(("mAP", "AR"))]
        for _, output in (judged, again)
    ]
    assert len(rows[0]) == 12
    assert rows[0] == rows[1]


def test_mmdets_inferencer_takes_config_and_checkpoint(fitted, saved):
    from mmdet.apis import DetInferencer

    inferencer = DetInferencer(str(find_config(CONFIG)), str(fitted / "fitted.pth"), device="cpu", show_progress=False)
    paths = sorted(map(str, (fitted / IMAGES).glob("*.jpg")))
    ids = {entry["name"]: entry["id"] for entry in json.loads((fitted / TRUTH).read_text())["categories"]}
    names = inferencer.model.dataset_meta["classes"]
    found = []
    for number, image in enumerate(inferencer(paths, batch_size=2)["predictions"], 1):
        rows = zip(image["labels"], image["scores"], image["bboxes"], image["masks"], strict=True)
        for label, score, (left, top, right, bottom), mask in rows:
            box = [left, top, right - left, bottom - top]
            entry = {"image_id": number, "category_id": ids[names[label]], "score": score}
            found.append(entry | {"bbox": box, "segmentation": mask})
    assert_same(found, results_of(saved, "segm"))


def test_classes_are_the_configs_where_the_checkpoint_names_none(fitted, tmp_path, call_tool):
    state = torch.load(fitted / "fitted.pth", weights_only=True)["state_dict"]
    torch.save({"state_dict": state}, fitted / "nameless.pth")
    image = f"{IMAGES}/000002.jpg"
    status, output = call_tool(fitted, "predict.py", CONFIG, "nameless.pth", image, "--out", tmp_path)
    assert status == 0, output
    content = json.loads((tmp_path / "images.json").read_text())
    assert [entry["name"] for entry in content["categories"][:3]] == ["zero", "one", "two"]
    assert content["images"] == [{"id": 1, "file_name": image, "width": 160, "height": 160}]


def test_unreadable_images_are_left_out_and_told(fitted, tmp_path, call_tool):
    mixed = fitted / "mixed"
    (mixed / "below").mkdir(parents=True, exist_ok=True)
    (mixed / "below/one.jpg").write_bytes((fitted / IMAGES / "000001.jpg").read_bytes())
    (mixed / "junk.jpg").write_text("junk")
    (mixed / "empty.png").write_text("")
    (mixed / "notes.txt").write_text("no image")
    flags = ["--out", tmp_path / "new", "--batch-size", 2]
    status, output = call_tool(fitted, "predict.py", CONFIG, "fitted.pth", "mixed", "mixed/ju*.jpg", *flags)
    assert status == 1
    assert "1 images predicted" in output
    assert "predict.py: 2 of 3 images cannot be read (such as mixed/empty.png: UnidentifiedImageError" in output
    assert "; mixed/junk.jpg: UnidentifiedImageError" in output
    assert [path.name for path in (tmp_path / "new/pictures").rglob("*.*")] == ["one.jpg"]
    # What is there is written over only where that is asked for.
    before = (tmp_path / "new/predictions.json").read_bytes()
    status, output = call_tool(fitted, "predict.py", CONFIG, "fitted.pth", IMAGES, *flags)
    assert status == 1
    assert "new/predictions.json exists; --force writes over it" in output
    assert (tmp_path / "new/predictions.json").read_bytes() == before


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([CONFIG, "fitted.pth", "nowhere/*.jpg"], "no image 'nowhere/*.jpg'"),
        ([CONFIG, "nowhere.pth", IMAGES], "no checkpoint file"),
        ([CONFIG, "foreign.pth", IMAGES], "of its 124 parameters 0 match; 124 missing"),
        (["nowhere.py", "fitted.pth", IMAGES], "config 'nowhere.py' does not exist"),
        (["untested.py", "fitted.pth", IMAGES], "untested.py has no test_dataloader"),
        ([CONFIG, "fitted.pth", IMAGES, "--device", "teapot"], "--device teapot: "),
        ([CONFIG, "fitted.pth", IMAGES, "--batch-size", "0"], "--batch-size must be at least 1, got 0"),
        (
            [CONFIG, "fitted.pth", "data/digits/train", "--ann-file", "few.json"],
            "is not among the 1 of the annotations",
        ),
        ([CONFIG, "fitted.pth", IMAGES, "--ann-file", "few.json"], "9 of the model's 10 classes are no categories"),
    ],
)
def test_faults_are_told_in_one_line(fitted, tmp_path, call_tool, args, said):
    torch.save({"state_dict": {"stem.weight": torch.ones(1)}}, fitted / "foreign.pth")
    (fitted / "untested.py").write_text(f"_base_ = {str(find_config(CONFIG))!r}\ntest_dataloader = None\n")
    truth = json.loads((fitted / TRUTH).read_text())
    few = truth | {"images": truth["images"][:1], "annotations": []}
    if said.startswith("9"):
        few["categories"] = few["categories"][:1]
    (fitted / "few.json").write_text(json.dumps(few))
    status, output = call_tool(fitted, "predict.py", *args, "--out", tmp_path / "out")
    assert status
    assert said in output
    assert "Traceback" not in output
    assert not (tmp_path / "out").exists()
