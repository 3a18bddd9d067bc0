"""SharedCocoDataset: the items of CocoDataset, parsed once for all processes."""

import json
import os
import pickle
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS
from mmengine.dataset import pseudo_collate

import mmgn  # noqa: F401  # before mmdet
from mmgn.datasets import shared
from mmgn.datasets.digits import CLASSES, make_digits
from mmgn.datasets.shared import Items, SharedItems, read_items, write_items

RANK = Path(__file__).parent / "shared_rank.py"


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Masks as compressed RLE, ten classes."""
    return make_digits(tmp_path_factory.mktemp("digits"), num_train=12, num_val=1).train_annotations


@pytest.fixture
def polygons(tmp_path):
    """An image without objects, a small one, a crowd, a box outside, floats that have no short decimal form."""
    boxes = [[0.1 + 0.2, 1, 30, 40], [5, 5, 1 / 3 + 2, 9.7], [900, 900, 5, 5], [0, 0, 50, 50]]
    annotations = [
        {"id": i, "image_id": i % 3, "category_id": 3 + 4 * (i % 2), "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for i, box in enumerate(boxes, 1)
    ]
    for annotation in annotations:
        x, y, w, h = annotation["bbox"]
        annotation["segmentation"] = [[x, y, x + w, y, x + w, y + h]]
    annotations[3] |= {"iscrowd": 1, "segmentation": {"size": [64, 64], "counts": [10, 20, 4066]}}
    truth = {
        "images": [{"id": i, "file_name": f"ä{i}.jpg", "width": 64, "height": 64 if i < 4 else 20} for i in range(6)],
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
        "annotations": annotations,
    }
    path = tmp_path / "polygons.json"
    path.write_text(json.dumps(truth))
    return path


def build(kind, ann_file, cache=None, classes=("dog", "cat"), **settings):
    settings = dict(data_prefix=dict(img="images/"), pipeline=[], metainfo=dict(classes=classes)) | settings
    if cache:
        settings["cache_dir"] = str(cache)
    return DATASETS.build(dict(type=kind, ann_file=str(ann_file), _scope_="mmdet", **settings))


def items(dataset):
    return [dataset[i] for i in range(len(dataset))]


def cache_file(cache):
    (path,) = cache.glob("*.items")
    return path


SETTINGS = [
    dict(),
    dict(test_mode=True),
    dict(filter_cfg=dict(filter_empty_gt=True, min_size=32)),
    dict(filter_cfg=dict(filter_empty_gt=False, min_size=32)),
    dict(indices=2),
    dict(indices=[1, 0]),
    dict(classes=("cat",)),
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_items_are_those_of_coco_dataset(polygons, tmp_path, settings):
    theirs = build("CocoDataset", polygons, **settings)
    for start in ("first", "later"):
        ours = build("SharedCocoDataset", polygons, tmp_path / "cache", **settings)
        assert items(ours) == items(theirs), start
        assert ours[-1] == theirs[-1]
        assert (ours.cat_ids, ours.cat2label, ours.metainfo) == (theirs.cat_ids, theirs.cat2label, theirs.metainfo)
        assert [ours.get_cat_ids(i) for i in range(len(ours))] == [theirs.get_cat_ids(i) for i in range(len(theirs))]


def test_items_with_run_lengths_and_through_workers(digits, tmp_path):
    theirs = build("CocoDataset", digits, classes=CLASSES)
    ours = build("SharedCocoDataset", digits, tmp_path, classes=CLASSES)
    assert len(ours) == 12
    assert isinstance(ours[0]["instances"][0]["mask"]["counts"], str)
    loader = torch.utils.data.DataLoader(ours, 5, num_workers=2, collate_fn=lambda batch: batch)
    assert [item for batch in loader for item in batch] == items(theirs)
    assert pseudo_collate([ours[0]]) == pseudo_collate([theirs[0]])


def test_subsets(polygons, tmp_path):
    theirs, ours = build("CocoDataset", polygons), build("SharedCocoDataset", polygons, tmp_path / "cache")
    for indices in (3, -2, [2, 0]):
        assert items(ours.get_subset(indices)) == items(theirs.get_subset(indices))
    ours.get_subset_([4, 1])
    theirs.get_subset_([4, 1])
    assert items(ours) == items(theirs)
    # A worker that is spawned gets a data set this way.
    assert items(pickle.loads(pickle.dumps(ours))) == items(theirs)


def test_index_out_of_range(polygons, tmp_path):
    dataset = build("SharedCocoDataset", polygons, tmp_path / "cache")
    for idx in (6, -7):
        with pytest.raises(IndexError, match=f"item {idx} of a data set of 6"):
            dataset[idx]


def test_later_start_does_not_parse(polygons, tmp_path):
    first = items(build("SharedCocoDataset", polygons, tmp_path / "cache"))
    stat = polygons.stat()
    # Nobody can parse this, and nobody can tell it from the file that was there.
    polygons.write_bytes(b"x" * stat.st_size)
    os.utime(polygons, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert items(build("SharedCocoDataset", polygons, tmp_path / "cache")) == first


def test_other_annotations_replace_the_cache(polygons, tmp_path):
    cache = tmp_path / "cache"
    build("SharedCocoDataset", polygons, cache)
    before = cache_file(cache)
    stat = polygons.stat()
    # As long as the old ones.
    polygons.write_text(polygons.read_text().replace("3.jpg", "9.jpg"))
    os.utime(polygons, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert items(build("SharedCocoDataset", polygons, cache)) == items(build("CocoDataset", polygons))
    assert cache_file(cache) == before


def test_other_settings_have_another_cache(polygons, tmp_path):
    for settings in SETTINGS:
        build("SharedCocoDataset", polygons, tmp_path / "cache", **settings)
    assert len(list((tmp_path / "cache").glob("*.items"))) == len(SETTINGS)


def cut(data):
    return data[:-3]


def cut_in_the_ends(data):
    return data[: data.index(b"NUMPY") + 150]


def one_bit(data):
    return data[:-20] + bytes([data[-20] ^ 1]) + data[-19:]


def one_bit_of_the_ends(data):
    place = data.index(b"NUMPY") + 130
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def empty(data):
    return b""


def no_json(data):
    return b"\x80\x04" + data


def json_of_another_kind(data):
    return b"[1]\n" + data


@pytest.mark.parametrize(
    "damage", [cut, cut_in_the_ends, one_bit, one_bit_of_the_ends, empty, no_json, json_of_another_kind]
)
def test_damaged_cache_is_rebuilt(polygons, tmp_path, damage):
    cache = tmp_path / "cache"
    first = items(build("SharedCocoDataset", polygons, cache))
    sound = cache_file(cache).read_bytes()
    cache_file(cache).write_bytes(damage(sound))
    assert items(build("SharedCocoDataset", polygons, cache)) == first
    assert cache_file(cache).read_bytes() == sound


def test_two_ranks_parse_once_and_map_the_same_file(digits, tmp_path):
    ranks = [
        subprocess.Popen(
            [sys.executable, RANK, str(rank), str(tmp_path / "store"), str(digits), str(tmp_path / "cache")],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [rank.communicate(timeout=300)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], outputs
    answers = [json.loads(output.splitlines()[-1]) for output in outputs]
    theirs = items(build("CocoDataset", digits, classes=CLASSES))
    assert [answer["items"] for answer in answers] == [theirs, theirs]
    assert sorted(output.count("is parsed, once, into") for output in outputs) == [0, 1]
    mapped = os.path.realpath(cache_file(tmp_path / "cache"))
    assert [answer["mapped"] for answer in answers] == [mapped, mapped]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (dict(return_classes=True), "JSON does not give back unchanged"),
        (dict(serialize_data=False), "serialize_data=False keeps nothing"),
        (dict(filter_cfg=dict(min_size=1000)), "no image that filter_cfg"),
        (dict(ann_file="s3://bucket/coco.json"), r"'s3://bucket/coco.json' is no local file.*CocoDataset"),
    ],
)
def test_what_cannot_be_shared_is_refused(polygons, tmp_path, settings, words):
    ann_file = settings.pop("ann_file", polygons)
    with pytest.raises(ValueError, match=words):
        build("SharedCocoDataset", ann_file, tmp_path / "cache", **settings)
    assert not list(tmp_path.glob("cache/*.items"))


def test_full_disk_leaves_nothing(tmp_path):
    path = tmp_path / "a.items"
    items = Items(np.zeros(100_000, np.uint8), np.array([100_000]), [1])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"cannot be written.*cache_dir"):
            write_items(path, {}, items)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())
    write_items(path, {}, items)
    assert read_items(path, {}).cat_ids == [1]
    assert read_items(path, {"other": 1}) is None


def test_a_process_that_parses_for_ever_is_named(monkeypatch, polygons, tmp_path):
    cache = tmp_path / "cache"
    build("SharedCocoDataset", polygons, cache)
    monkeypatch.setattr(shared, "PATIENCE", 0.2)
    holder = (
        "import sys, time, filelock as f; a = f.FileLock(sys.argv[1]); a.acquire(); print(flush=True); time.sleep(99)"
    )
    lock = f"{cache_file(cache)}.lock"
    # A file that fits is read without a lock.
    cache_file(cache).unlink()
    with subprocess.Popen([sys.executable, "-c", holder, lock], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        with pytest.raises(TimeoutError, match=r"another process has held .*polygons-\w+\.items\.lock"):
            build("SharedCocoDataset", polygons, cache)
        # A lock goes with its process, however that ends.
        process.kill()
        process.wait()
        monkeypatch.setattr(shared, "PATIENCE", 60)
        assert len(build("SharedCocoDataset", polygons, cache)) == 6


def test_default_cache_is_the_users(monkeypatch, polygons, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    build("SharedCocoDataset", polygons)
    assert cache_file(tmp_path / "xdg/mmgn/annotations")


def test_shares_another_data_set(polygons, tmp_path):
    theirs = DATASETS.get("mmdet.Objects365V2Dataset")

    class SharedObjects365(SharedItems, theirs):
        pass

    settings = dict(ann_file=str(polygons), data_prefix=dict(img=""), pipeline=[], metainfo=dict(classes=("cat",)))
    for _ in range(2):
        assert items(SharedObjects365(**settings, cache_dir=str(tmp_path / "c"))) == items(theirs(**settings))
