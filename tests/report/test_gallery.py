import io
import json
import re
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from mmgn.evaluation import analyse
from mmgn.report import gallery as gallery_module
from mmgn.report.gallery import draw_gallery, error_kinds
from mmgn.report.pictures import LONG_SIDE, draw_entries
from mmgn.report.run import read_run


@pytest.fixture
def run(work_dir):
    return read_run(work_dir)


def judge(run):
    """Judge a run's predictions anew."""
    cat_ids = [category["id"] for category in run.predictions.categories]
    for kind, results in run.predictions.results.items():
        run.analyses[kind] = analyse(run.predictions.truth, results, kind, cat_ids)
    return run


@pytest.mark.parametrize(
    "segmentation, told",
    [
        ([[0, 0, 1e9, 0, 0, 1e9]], "a polygon of 3 points is over 33554432 pixels long"),
        ({"size": [320, 320], "counts": "1X3"}, "masks whose counts are not"),
        ({"size": [4, 4], "counts": [0, 16]}, "a mask of 4×4 pixels"),
        ({"size": [320, 320], "counts": [0, 2**31]}, "."),
    ],
    ids=["outline", "short", "small", "long"],
)
def test_masks_that_pycocotools_would_crash_on_are_told_not_drawn(work_dir, coco_set, segmentation, told):
    """Boxes alone are judged, so nothing has looked at the masks before they are drawn."""
    (work_dir / "results.segm.json").unlink()
    for annotation in coco_set.truth["annotations"]:
        annotation["segmentation"] = segmentation
    coco_set.ann_file.write_text(json.dumps(coco_set.truth))
    gallery = draw_gallery(read_run(work_dir), 2)
    assert gallery.pairs == []
    assert len(gallery.missing) == 2 and all(re.search(told, text) for text in gallery.missing)


def test_the_hardest_come_first_then_what_they_do_not_show(run):
    errors = run.analyses["segm"].errors
    ranked = sorted(errors, key=lambda own: (own.f1, own.image_id))
    gallery = draw_gallery(run, 5)
    ids = [pair.counts.image_id for pair in gallery.pairs]
    assert ids[:3] == [own.image_id for own in ranked[:3]]
    assert [pair.counts.f1 for pair in gallery.pairs] == sorted(pair.counts.f1 for pair in gallery.pairs)
    assert gallery.selection.startswith(f"The 3 hardest of {len(errors)} images and 2 that show other classes")

    def shown(count):
        marks = [mark for pair in draw_gallery(run, count).pairs for mark in pair.marks]
        return {(mark.label, mark.error) for mark in marks}

    hardest_only = {
        (mark.label, mark.error) for pair in draw_gallery(run, 12).pairs for mark in pair.marks
        if pair.counts.image_id in {own.image_id for own in ranked[:5]}
    }  # fmt: skip
    assert len(shown(5)) >= len(hardest_only)
    assert draw_gallery(run, 50).selection.startswith(f"All {len(errors)} images")


def test_every_error_has_a_mark_with_its_box(run):
    analysis, results = run.analyses["segm"], run.predictions.results["segm"]
    objects = {entry["id"]: entry for entry in run.predictions.truth["annotations"]}
    for pair in draw_gallery(run, 12).pairs:
        own = next(e for e in analysis.errors if e.image_id == pair.counts.image_id)
        expected = [("missed", objects[number]["bbox"]) for number in own.missed_ids]
        expected += [(kind, results[index]["bbox"]) for index, kind in own.kinds.items() if kind != "correct"]
        expected = [(kind, tuple(round(100 * part / 320, 1) for part in box)) for kind, box in expected]
        assert sorted((mark.error, mark.box) for mark in pair.marks) == sorted(expected)
    marks = [mark for pair in draw_gallery(run, 12).pairs for mark in pair.marks]
    assert {mark.error for mark in marks} == set(error_kinds(draw_gallery(run, 12).pairs)) > {"missed"}
    assert all(", is " in mark.text for mark in marks if mark.error == "classification")


def test_pictures_show_what_is_there(run):
    annotation = max(run.predictions.truth["annotations"], key=lambda entry: entry["area"])
    run.predictions.truth["annotations"] = [annotation]
    run.predictions.results = {"segm": []}
    (pair,) = draw_gallery(judge(run), 5).pairs
    truth, prediction = (
        np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"), dtype=int) for jpeg in (pair.truth, pair.prediction)
    )
    assert truth.shape == prediction.shape == (LONG_SIDE, LONG_SIDE, 3)
    # Nothing was predicted, so that picture is the photograph; the truth's mask is coloured.
    assert np.abs(prediction - (90, 100, 110)).max() <= 3
    scale = LONG_SIDE / 320
    x, y, w, h = annotation["bbox"]
    middle = truth[round((y + h / 2) * scale), round((x + w / 2) * scale)]
    assert np.abs(middle - (90, 100, 110)).max() > 30
    assert pair.caption == f"{annotation['image_id']:03d}.png: 0 found, 0 false, 1 missed, F1 0.00"
    name = {7: "<script>disc</script>", 3: "box|*a_b*", 90: "bar"}[annotation["category_id"]]
    assert [mark.text for mark in pair.marks] == [f"{name} missed"]


def test_only_sure_detections_are_drawn(run):
    drawn = draw_gallery(run, 12).pairs
    results = run.predictions.results["segm"]
    sure = [entry for entry in results if entry["score"] >= 0.3]
    assert len(sure) < len(results)
    run.predictions.results["segm"] = sure
    again = draw_gallery(judge(run), 12).pairs
    assert [(p.truth, p.prediction, p.marks) for p in again] == [(p.truth, p.prediction, p.marks) for p in drawn]


def test_only_the_models_classes_are_drawn(run):
    run.predictions.categories = [category for category in run.predictions.categories if category["id"] == 90]
    drawn = draw_gallery(judge(run), 12).pairs
    for entries in (run.predictions.truth["annotations"], run.predictions.results["segm"]):
        entries[:] = [entry for entry in entries if entry["category_id"] == 90]
    again = draw_gallery(judge(run), 12).pairs
    assert [(p.truth, p.prediction) for p in again] == [(p.truth, p.prediction) for p in drawn]


def test_no_sure_detection_is_told(run):
    run.predictions.results["segm"] = [entry | {"score": 0.1} for entry in run.predictions.results["segm"]]
    assert draw_gallery(judge(run), 12).selection.endswith("No detection has a score of 0.3 or more.")


def test_images_that_cannot_be_shown_are_named(run):
    img_dir = run.predictions.img_dir
    (img_dir / "002.png").unlink()
    (img_dir / "003.png").write_bytes(b"no picture")
    Image.new("RGB", (10, 20)).save(img_dir / "004.png")
    gallery = draw_gallery(run, 12)
    assert len(gallery.pairs) == 9
    told = dict(reason.split(": ", 1) for reason in gallery.missing)
    assert told["002.png"] == f"not in {img_dir}"
    assert "cannot identify image file" in told["003.png"]
    assert told["004.png"] == "is 10×20, annotated as 320×320"


def test_what_decoders_raise_keeps_one_image_out(run):
    img_dir, truth = run.predictions.img_dir, run.predictions.truth
    png = (img_dir / "002.png").read_bytes()
    # The pixels' chunk ends early, and what follows is no chunk.
    start = png.index(b"IDAT")
    chunk = png[start : start + 20]
    begun = png[: start - 4] + struct.pack(">I", 16) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (img_dir / "002.png").write_bytes(begun + b"\0\0\1\0\1\2\3\4" + png[start + 20 :])
    header = b"IHDR" + struct.pack(">II", 20_000, 20_000) + png[24:29]
    (img_dir / "003.png").write_bytes(png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:])
    del run.predictions.results["segm"], run.analyses["segm"]
    broken, other = (next(e for e in truth["annotations"] if e["image_id"] == image_id) for image_id in (4, 5))
    broken["segmentation"] = [[]]
    other["segmentation"] = {"size": [64, 64], "counts": [0, 4096]}
    gallery = draw_gallery(judge(run), 12)
    assert len(gallery.pairs) == 8
    told = dict(reason.split(": ", 1) for reason in gallery.missing)
    assert told["002.png"].startswith("SyntaxError: broken PNG file")
    assert told["003.png"].startswith("DecompressionBombError: Image size (400000000 pixels)")
    assert told["004.png"].startswith("Exception: ")
    assert told["005.png"] == "a mask of 64×64 pixels"


def test_a_mask_without_its_box_is_drawn(run):
    boxes = [mark.box for pair in draw_gallery(run, 12).pairs for mark in pair.marks if mark.error != "missed"]
    for entry in run.predictions.results["segm"]:
        entry["bbox"] = None
    gallery = draw_gallery(run, 12)
    assert not gallery.missing
    again = [mark.box for pair in gallery.pairs for mark in pair.marks if mark.error != "missed"]
    # The results' boxes are off their masks by a few pixels.
    assert np.abs(np.subtract(again, boxes)).max() < 4


def test_images_outside_their_folder_are_not_shown(run, tmp_path, monkeypatch):
    img_dir, images = run.predictions.img_dir, run.predictions.truth["images"]
    (img_dir / "000.png").rename(tmp_path / "outside.png")
    (img_dir / "001.png").rename(tmp_path / "other.png")
    names = ["../outside.png", str(tmp_path / "other.png"), str(img_dir / "002.png"), "../images/003.png"]
    for image, name in zip(images, names, strict=False):
        image["file_name"] = name
    assert sorted(draw_gallery(run, 12).missing) == sorted(f"{name}: not below {img_dir}" for name in names[:2])
    # Without a folder names are paths, as tools/predict.py writes them.
    run.predictions.img_dir = None
    monkeypatch.chdir(img_dir)
    assert not draw_gallery(run, 12).missing


def test_an_image_of_another_size_is_not_decoded(run):
    path = run.predictions.img_dir / "004.png"
    Image.new("RGB", (10, 20)).save(path)
    png = path.read_bytes()
    path.write_bytes(png[: png.index(b"IDAT")] + b"IDATgarbage")
    assert draw_gallery(run, 12).missing == ["004.png: is 10×20, annotated as 320×320"]


def test_an_image_is_copied_once():
    picture = Image.new("RGB", (1000, 1000))
    tracemalloc.start()
    try:
        draw_entries(picture, [], None)
        assert tracemalloc.get_traced_memory()[1] < 2 * 12e6
    finally:
        tracemalloc.stop()


def test_grey_images_and_plain_boxes(run):
    for path in run.predictions.img_dir.iterdir():
        Image.open(path).convert("L").save(path)
    del run.predictions.results["segm"], run.analyses["segm"]
    gallery = draw_gallery(run, 12)
    assert len(gallery.pairs) == 12
    assert "F1 of boxes" in gallery.selection


def test_pictures_end_where_they_weigh_too_much(run, monkeypatch):
    every = draw_gallery(run, 12).pairs
    three = sum(len(pair.truth) + len(pair.prediction) for pair in every[:3])
    monkeypatch.setattr(gallery_module, "MAX_BYTES", three)
    gallery = draw_gallery(run, 12)
    assert len(gallery.pairs) == 3
    assert "After 3 of them the pictures weigh" in gallery.selection


def test_no_figures_no_gallery(run):
    run.analyses.clear()
    assert draw_gallery(run, 12) is None
