import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("pycocotools")
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from sklearn.datasets import load_digits

from mmgn.datasets.digits import CLASSES, PHOTO_SPLIT, DigitsPaths, make_digits
from mmgn.datasets.handwriting import load_handwriting

# pycocotools' RLE decoder has not followed numpy 2 yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

REPO = Path(__file__).parents[2]
SMALL = {"num_train": 6, "num_val": 3, "image_size": 96}


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> DigitsPaths:
    return make_digits(tmp_path_factory.mktemp("sets") / "digits", num_train=120, num_val=40)


def hashes(root: Path) -> dict[str, str]:
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def start(out_dir: Path, hash_seed: str = "random", **arguments: int) -> subprocess.Popen:
    code = f"from mmgn.datasets.digits import make_digits; make_digits({str(out_dir)!r}, **{arguments})"
    env = {**os.environ, "PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO)}
    return subprocess.Popen([sys.executable, "-c", code], env=env, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("split", ["train", "val"])
def test_boxes_areas_and_ids_are_those_of_the_masks(paths, split):
    coco = COCO(getattr(paths, f"{split}_annotations"))
    annotations = coco.dataset["annotations"]
    assert [a["id"] for a in annotations] == list(range(1, len(annotations) + 1))
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == list(CLASSES)
    for annotation in annotations:
        mask = coco.annToMask(annotation)
        rows, columns = np.nonzero(mask)
        x, y, w, h = annotation["bbox"]
        assert (x, y) == (columns.min(), rows.min())
        assert (x + w - 1, y + h - 1) == (columns.max(), rows.max())
        assert annotation["area"] == mask.sum() >= 150
        assert annotation["iscrowd"] == 0
        assert isinstance(annotation["segmentation"]["counts"], str)
        assert min(w, h) >= 6 and max(w, h) <= 100


@pytest.mark.parametrize("split", ["train", "val"])
def test_masks_of_an_image_do_not_overlap_and_every_image_has_digits(paths, split):
    coco = COCO(getattr(paths, f"{split}_annotations"))
    for image in coco.dataset["images"]:
        masks = [coco.annToMask(a) for a in coco.imgToAnns[image["id"]]]
        assert 1 <= len(masks) <= 5
        assert np.max(np.sum(masks, axis=0)) == 1
        pixels = np.asarray(Image.open(getattr(paths, split) / image["file_name"]))
        assert pixels.shape == (image["height"], image["width"], 3) == (160, 160, 3)


def test_images_are_the_folder(paths):
    for folder, annotations in [(paths.train, paths.train_annotations), (paths.val, paths.val_annotations)]:
        names = [image["file_name"] for image in json.loads(annotations.read_text())["images"]]
        assert sorted(p.name for p in folder.iterdir()) == sorted(names)


def test_train_and_val_share_no_digit_and_no_background(paths):
    train, val = (json.loads(p.read_text()) for p in (paths.train_annotations, paths.val_annotations))
    sources = [{a["source_index"] for a in split["annotations"]} for split in (train, val)]
    assert sources[0] and sources[1] and sources[0].isdisjoint(sources[1])
    target = load_digits().target
    for annotation in train["annotations"] + val["annotations"]:
        assert target[annotation["source_index"]] + 1 == annotation["category_id"]
    for split, is_val in [(train, False), (val, True)]:
        boxes = [image["background_box"] for image in split["images"] if "background_box" in image]
        assert len(boxes) > 0.5 * len(split["images"])
        assert all(x >= PHOTO_SPLIT if is_val else x + w <= PHOTO_SPLIT for x, _, w, _ in boxes)


def test_every_class_gives_a_fifth_of_its_digits_to_val():
    digits = load_handwriting()
    train, val = digits.splits
    assert sorted([*train, *val]) == list(range(1797))
    for label in range(10):
        share = np.mean(np.isin(np.flatnonzero(digits.labels == label), val))
        assert share == pytest.approx(0.2, abs=0.01)


def test_digits_stand_out_from_what_surrounds_them(paths):
    coco = COCO(paths.train_annotations)
    contrasts = []
    for image in coco.dataset["images"]:
        pixels = np.asarray(Image.open(paths.train / image["file_name"]), dtype=float).mean(axis=2)
        masks = [coco.annToMask(a).astype(bool) for a in coco.imgToAnns[image["id"]]]
        background = ~np.any(masks, axis=0)
        for annotation, mask in zip(coco.imgToAnns[image["id"]], masks, strict=True):
            x, y, w, h = annotation["bbox"]
            around = np.zeros_like(mask)
            around[max(y - 4, 0) : y + h + 4, max(x - 4, 0) : x + w + 4] = True
            contrasts.append(abs(pixels[mask].mean() - pixels[around & background].mean()))
    assert np.percentile(contrasts, 5) > 40
    assert np.median(contrasts) > 70


def test_some_digits_overlap(paths):
    coco = COCO(paths.train_annotations)
    pairs = 0
    for annotations in coco.imgToAnns.values():
        boxes = np.array([a["bbox"] for a in annotations], dtype=float)
        overlaps = coco_mask.iou(boxes, boxes, [0] * len(boxes))
        pairs += int((np.triu(overlaps, 1) > 0.05).sum())
    assert pairs > 20


def test_same_arguments_give_the_same_bytes_in_any_process(tmp_path):
    processes = [start(tmp_path / name, hash_seed, **SMALL) for name, hash_seed in [("a", "1"), ("b", "2")]]
    make_digits(tmp_path / "c", **SMALL)
    for process in processes:
        assert process.wait(120) == 0, process.stderr.read()
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b") == hashes(tmp_path / "c")


def test_another_seed_gives_other_images_and_a_larger_set_begins_with_the_smaller(tmp_path):
    first = hashes(make_digits(tmp_path / "a", **SMALL).root)
    other = hashes(make_digits(tmp_path / "b", **SMALL, seed=1).root)
    larger = hashes(make_digits(tmp_path / "c", **{**SMALL, "num_train": 8}).root)
    images = [name for name in first if name.endswith(".jpg")]
    assert len({first[name] for name in images} | {other[name] for name in images}) == 2 * len(images)
    assert all(larger[name] == first[name] for name in images)


def test_the_set_is_reused_and_never_overwritten(tmp_path):
    paths = make_digits(tmp_path / "digits", **SMALL)
    before = {p: p.stat().st_mtime_ns for p in paths.root.rglob("*")}
    assert make_digits(paths.root, **SMALL) == paths
    assert {p: p.stat().st_mtime_ns for p in paths.root.rglob("*")} == before

    with pytest.raises(FileExistsError, match=r"'seed': 0.*'seed': 3"):
        make_digits(paths.root, **SMALL, seed=3)
    (paths.val / "000002.jpg").unlink()
    with pytest.raises(FileExistsError, match=r"has 2 files val/\*\.jpg where digits\.json promises 3"):
        make_digits(paths.root, **SMALL)


def test_a_foreign_folder_or_file_is_left_alone_and_an_empty_folder_is_used(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"cat")
    (tmp_path / "file").write_text("text")
    for name in ("photos", "file"):
        with pytest.raises(FileExistsError, match="is not a digits data set"):
            make_digits(tmp_path / name, **SMALL)
    assert (tmp_path / "photos" / "cat.jpg").read_bytes() == b"cat"
    assert (tmp_path / "file").read_text() == "text"
    (tmp_path / "empty").mkdir()
    assert len(list(make_digits(tmp_path / "empty", **SMALL).train.iterdir())) == 6
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "file", "photos"]


def test_an_interrupted_run_leaves_nothing(tmp_path):
    process = start(tmp_path / "digits", num_train=5000)
    deadline = time.monotonic() + 60
    while not list(tmp_path.rglob("000010.jpg")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    assert not (tmp_path / "digits").exists()
    process.send_signal(signal.SIGINT)
    assert process.wait(60) != 0
    assert list(tmp_path.iterdir()) == []


def test_two_processes_may_make_the_same_set(tmp_path):
    processes = [start(tmp_path / "digits", **SMALL) for _ in range(2)]
    for process in processes:
        assert process.wait(120) == 0, process.stderr.read()
    assert [p.name for p in tmp_path.iterdir()] == ["digits"]
    assert len(hashes(tmp_path / "digits")) == 6 + 3 + 2 + 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_train": 0}, "num_train must be an int at least 1, got 0"),
        ({"num_val": 2.5}, "num_val must be an int at least 1, got 2.5"),
        ({"image_size": 32}, "image_size must be an int at least 64, got 32"),
        ({"max_digits": 9}, "max_digits must be an int from 1 to 8, got 9"),
        ({"seed": -1}, "seed must be an int at least 0, got -1"),
    ],
)
def test_wrong_arguments_are_named_with_their_values(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_digits(tmp_path / "digits", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_missing_scikit_learn_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r'pip install "mmgn\[quickstart\]"'):
        make_digits(tmp_path / "digits", **SMALL)


def test_mmdet_reads_it_with_masks(paths):
    pytest.importorskip("mmdet")
    from mmgn.compat import mmcv_ops

    mmcv_ops.install()
    from mmdet.datasets import CocoDataset
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    dataset = CocoDataset(
        data_root=str(paths.root),
        ann_file="annotations/instances_train.json",
        data_prefix={"img": "train/"},
        metainfo={"classes": CLASSES},
        pipeline=[
            {"type": "LoadImageFromFile"},
            {"type": "LoadAnnotations", "with_bbox": True, "with_mask": True},
            {"type": "PackDetInputs"},
        ],
    )
    coco = COCO(paths.train_annotations)
    assert len(dataset) == 120
    for index in (0, 1, 119):
        sample = dataset[index]
        truth = sample["data_samples"].gt_instances
        annotations = coco.imgToAnns[sample["data_samples"].img_id]
        assert truth.labels.tolist() == [a["category_id"] - 1 for a in annotations]
        assert np.array_equal(truth.masks.masks, [coco.annToMask(a) for a in annotations])
        assert sample["inputs"].shape == (3, 160, 160)
