import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("pycocotools")
from PIL import Image
from pycocotools import mask as mask_api

SIZE = 320
# Not in numeric order, with gaps, and with names that must be escaped.
CATEGORIES = [{"id": 7, "name": "<script>disc</script>"}, {"id": 3, "name": "box|*a_b*"}, {"id": 90, "name": "bar"}]


def encode(mask):
    rle = mask_api.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def draw_mask(category_id, x, y, w, h):
    rows, columns = np.mgrid[:SIZE, :SIZE]
    inside = (rows >= y) & (rows < y + h) & (columns >= x) & (columns < x + w)
    if category_id == 7:
        inside &= ((columns - x - w / 2) / (w / 2)) ** 2 + ((rows - y - h / 2) / (h / 2)) ** 2 <= 1
    return inside


def shape(rng, category_id):
    # From below 32 to above 96 pixels, so that all three of COCO's sizes occur.
    w, h = rng.integers(12, 150, 2)
    x, y = (int(rng.integers(0, SIZE - side)) for side in (w, h))
    return draw_mask(category_id, x, y, int(w), int(h))


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("Chromium is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def coco_set(tmp_path):
    """12 images of discs, boxes and bars with masks, and predictions that find most of them, badly."""
    rng = np.random.default_rng(0)
    img_dir = tmp_path / "images"
    img_dir.mkdir()
    truth = {"images": [], "annotations": [], "categories": list(CATEGORIES)}
    bbox, segm = [], []
    for image_id in range(12):
        name = f"{image_id:03d}.png"
        Image.new("RGB", (SIZE, SIZE), (90, 100, 110)).save(img_dir / name)
        truth["images"].append({"id": image_id, "file_name": name, "width": SIZE, "height": SIZE})
        for _ in range(int(rng.integers(1, 5))):
            category_id = int(rng.choice([7, 3, 90]))
            mask = shape(rng, category_id)
            annotation = {"id": len(truth["annotations"]) + 1, "image_id": image_id, "category_id": category_id}
            rle = encode(mask)
            annotation |= {"segmentation": rle, "bbox": mask_api.toBbox(rle).tolist(), "area": int(mask.sum())}
            truth["annotations"].append(annotation | {"iscrowd": 0})
            if rng.random() < 0.85:
                found = encode(np.roll(mask, rng.integers(-4, 5, 2), (0, 1)))
                box = (np.array(mask_api.toBbox(found)) + rng.normal(0, 2, 4)).tolist()
                label = category_id if rng.random() < 0.9 else 3
                entry = {"image_id": image_id, "category_id": label, "score": float(rng.uniform(0.2, 1))}
                bbox.append(entry | {"bbox": box})
                segm.append(entry | {"bbox": box, "segmentation": found})
    # Found a second time, found as another class, and nothing there at all.
    second, other = segm[0], segm[5]
    nothing = {"image_id": 3, "segmentation": encode(draw_mask(3, 0, 0, 30, 20)), "category_id": 3}
    for extra in (second, other | {"category_id": {7: 3, 3: 90, 90: 7}[other["category_id"]]}, nothing):
        box = mask_api.toBbox(extra["segmentation"]).tolist()
        segm.append(extra | {"bbox": box, "score": 0.31})
        bbox.append({key: value for key, value in segm[-1].items() if key != "segmentation"})
    ann_file = tmp_path / "annotations.json"
    ann_file.write_text(json.dumps(truth))
    return SimpleNamespace(truth=truth, ann_file=ann_file, img_dir=img_dir, results={"bbox": bbox, "segm": segm})


def train_line(step, loss, **more):
    return {"lr": 0.02, "loss": loss, "loss_cls": loss / 2, "loss_<b>$x": 0.1, "iter": step, "step": step, **more}


def write_scalars(work_dir, stamp, lines, tail=""):
    path = work_dir / stamp / "vis_data" / "scalars.json"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + tail)
    path.with_name("config.py").write_text(f"# {stamp}\nmodel = '</pre><script>alert(1)</script>'\n")
    return path


@pytest.fixture
def lines():
    """The functions that write a training line and a file of scalars."""
    return SimpleNamespace(train=train_line, write=write_scalars)


@pytest.fixture
def work_dir(tmp_path, coco_set):
    """A finished run of two epochs with predictions and run.json."""
    path = tmp_path / "work"
    val = [{"coco/bbox_mAP": 0.1 * epoch, "coco/segm_mAP": 0.2, "step": epoch} for epoch in (1, 2)]
    epochs = [[train_line(10 * i, 3 / i, epoch=epoch) for i in span] for epoch, span in ((1, (1, 2)), (2, (3, 4)))]
    write_scalars(path, "20250101_000000", [*epochs[0], val[0], *epochs[1], val[1]])
    for kind, entries in coco_set.results.items():
        (path / f"results.{kind}.json").write_text(json.dumps(entries))
    context = {
        "config": "/configs/<img src=x>.py",
        "model": "MaskRCNN",
        "seed": 5,
        "world_size": 2,
        "device": "Imaginary <GPU>",
        "peak_memory_mb": 1234.5,
        "peak_memory_kind": "CUDA allocated",
        "versions": {"torch": "2.9", "nested": {"a": None, "b": [1, 2]}},
    }
    train = {"first_iter": 0, "seconds": 3725.0, "ended": "2025", "iter": 40, "max_iters": 40, "epoch": 2}
    evaluation = {
        "checkpoint": "/elsewhere/epoch_2.pth",
        "iter": None,
        "ended": "2025",
        "ann_file": str(coco_set.ann_file),
        "img_dir": str(coco_set.img_dir),
        "results_prefix": "results",
        "num_images": 12,
        "classes": [category["name"] for category in CATEGORIES],
        "metrics": {},
    }
    (path / "run.json").write_text(json.dumps({"train": context | train, "evaluation": context | evaluation}))
    return Path(path)


@pytest.fixture
def other(work_dir):
    """A second run on the same data, whose discs and boxes lie far off."""
    path = work_dir.with_name("other")
    shutil.copytree(work_dir, path)
    for kind in ("bbox", "segm"):
        file = path / f"results.{kind}.json"
        entries = json.loads(file.read_text())
        file.write_text(json.dumps([entry for entry in entries if entry["category_id"] == 90]))
    return path
