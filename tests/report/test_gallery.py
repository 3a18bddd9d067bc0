import io

import numpy as np
import pytest
from PIL import Image

from mmgn.report.coco_figures import CocoFigures, ImageCounts, evaluate
from mmgn.report.gallery import LONG_SIDE, draw_gallery
from mmgn.report.predictions import find_predictions
from mmgn.report.workdir import read_work_dir


@pytest.fixture
def predictions(work_dir):
    return find_predictions(read_work_dir(work_dir), None, None, None)


@pytest.fixture
def figures(predictions):
    cat_ids = [category["id"] for category in predictions.categories]
    return {"segm": evaluate(predictions.truth, predictions.results["segm"], "segm", cat_ids)}


def test_worst_and_best_are_chosen(predictions):
    # F1 of image i is i / 11, but for 4 and 5, which are equal.
    found = [0, 1, 2, 3, 4, 4, 6, 7, 8, 9, 10, 11]
    counts = [ImageCounts(i, 2 * n, 11 - n, 11 - n) for i, n in enumerate(found)]
    gallery = draw_gallery(predictions, {"segm": CocoFigures({}, {}, counts[::-1])}, 3)
    assert [pair.counts.image_id for pair in gallery.pairs] == [0, 1, 11]
    assert gallery.selection.startswith("The 2 worst and the 1 best of 12 images by F1 of masks at IoU 0.5")
    gallery = draw_gallery(predictions, {"segm": CocoFigures({}, {}, counts[::-1])}, 50)
    assert [pair.counts.image_id for pair in gallery.pairs] == list(range(12))
    assert gallery.selection.startswith("All 12 images")


def test_pictures_show_what_is_there(predictions, figures):
    annotation = max(predictions.truth["annotations"], key=lambda entry: entry["area"])
    predictions.truth["annotations"] = [annotation]
    predictions.results = {"segm": []}
    image_id = annotation["image_id"]
    counts = ImageCounts(image_id, 0, 0, 1)
    (pair,) = draw_gallery(predictions, {"segm": CocoFigures({}, {}, [counts])}, 5).pairs
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
    assert pair.caption == f"{image_id:03d}.png: 0 found, 0 false, 1 missed, F1 0.00"


def test_only_sure_detections_are_drawn(predictions, figures):
    drawn = draw_gallery(predictions, figures, 12).pairs
    predictions.results["segm"] = [entry for entry in predictions.results["segm"] if entry["score"] >= 0.3]
    assert len(predictions.results["segm"]) < len(predictions.results["bbox"])
    assert draw_gallery(predictions, figures, 12).pairs == drawn


def test_only_the_models_classes_are_drawn(predictions, figures):
    predictions.categories = [category for category in predictions.categories if category["id"] == 90]
    drawn = draw_gallery(predictions, figures, 12).pairs
    for entries in (predictions.truth["annotations"], predictions.results["segm"]):
        entries[:] = [entry for entry in entries if entry["category_id"] == 90]
    assert draw_gallery(predictions, figures, 12).pairs == drawn


def test_no_sure_detection_is_told(predictions, figures):
    predictions.results["segm"] = [entry | {"score": 0.1} for entry in predictions.results["segm"]]
    assert draw_gallery(predictions, figures, 12).selection.endswith("No detection has a score of 0.3 or more.")


def test_images_that_cannot_be_shown_are_named(predictions, figures):
    (predictions.img_dir / "002.png").unlink()
    (predictions.img_dir / "003.png").write_bytes(b"no picture")
    Image.new("RGB", (10, 20)).save(predictions.img_dir / "004.png")
    gallery = draw_gallery(predictions, figures, 12)
    assert len(gallery.pairs) == 9
    told = dict(reason.split(": ", 1) for reason in gallery.missing)
    assert told["002.png"] == f"not in {predictions.img_dir}"
    assert "cannot identify image file" in told["003.png"]
    assert told["004.png"] == "is 10×20, annotated as 320×320"


def test_grey_images_and_plain_boxes(predictions, figures):
    for path in predictions.img_dir.iterdir():
        Image.open(path).convert("L").save(path)
    del predictions.results["segm"]
    gallery = draw_gallery(predictions, {"bbox": figures["segm"]}, 12)
    assert len(gallery.pairs) == 12
    assert "F1 of boxes" in gallery.selection


def test_no_figures_no_gallery(predictions):
    assert draw_gallery(predictions, {}, 12) is None
