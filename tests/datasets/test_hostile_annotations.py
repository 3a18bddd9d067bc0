"""Annotation files made to break what reads them: told with a count, in bounded time and memory, nothing written."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mmdet")

from mmgn.datasets.check import check_dataset, check_quickly
from mmgn.evaluation import analyse
from mmgn.report.predictions import read_annotations

NAN, INF = float("nan"), float("inf")


def coco(**changes):
    image = {"id": 1, "file_name": "a.jpg", "width": 64, "height": 64} | changes.get("image", {})
    box = {"bbox": [1, 2, 10, 10], "area": 100.0, "iscrowd": 0, "segmentation": [[1, 2, 11, 2, 11, 12, 1, 12]]}
    annotation = {"id": 1, "image_id": 1, "category_id": 1} | box | changes.get("annotation", {})
    category = {"id": 1, "name": "a"} | changes.get("category", {})
    return {"images": [image], "annotations": [annotation], "categories": [category]}


def rle(height, width, counts):
    return {"annotation": {"segmentation": {"size": [height, width], "counts": counts}}}


#: Name -> changes of a sound file, and the kind of defect that is told.
HOSTILE = {
    "name leads out": ({"image": {"file_name": "../../../../etc/passwd"}}, "unsafe_file_name"),
    "name is absolute": ({"image": {"file_name": "/etc/passwd"}}, "unsafe_file_name"),
    "name has a zero": ({"image": {"file_name": "a\0.jpg"}}, "unsafe_file_name"),
    "name is a list": ({"image": {"file_name": ["a"]}}, "malformed_image"),
    "huge image": ({"image": {"width": 2**31, "height": 2**31}}, "malformed_image"),
    "huge number": ({"image": {"width": 10**300}}, "malformed_image"),
    "infinite image": ({"image": {"width": INF}}, "malformed_image"),
    "negative image": ({"image": {"width": -64}}, "malformed_image"),
    "id is an object": ({"image": {"id": {}}}, "malformed_image"),
    "box is not finite": ({"annotation": {"bbox": [NAN, 0, INF, 4]}}, "box_not_finite"),
    "box is negative": ({"annotation": {"bbox": [0, 0, -5, 4]}}, "box_negative"),
    "box is huge": ({"annotation": {"bbox": [1e300, 1e300, 1e300, 1e300]}}, "box_outside_image"),
    "box of text": ({"annotation": {"bbox": ["0", "0", "1", "1"]}}, "malformed_annotation"),
    "area is not finite": ({"annotation": {"area": NAN}}, "area_not_positive"),
    "crowd is a list": ({"annotation": {"iscrowd": [1]}}, "iscrowd_value"),
    "run-lengths of 1e18 pixels": (rle(10**9, 10**9, [10**18]), "malformed_segmentation"),
    "run-lengths beyond their size": (rle(64, 64, [0, 2**32 - 1]), "rle_counts_mismatch"),
    "run-lengths of 4e9 pixels": (rle(65535, 65535, [0, 65535**2]), "rle_size_mismatch"),
    "negative run-lengths": (rle(64, 64, [-1, 4097]), "rle_undecodable"),
    "compressed run-lengths without an end": (rle(64, 64, "o" * 10_000), "rle_undecodable"),
    "run-lengths of text": (rle("64", 64, "1"), "malformed_segmentation"),
    "polygon is not finite": ({"annotation": {"segmentation": [[NAN] * 8]}}, "malformed_segmentation"),
    "polygon far off": ({"annotation": {"segmentation": [[0, 0, 1e9, 0, 1e9, 1e9]]}}, "polygon_outside_image"),
    "polygon of objects": ({"annotation": {"segmentation": [[{}] * 6]}}, "malformed_segmentation"),
    "category without a name": ({"category": {"name": None}}, "malformed_category"),
}


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "annotations.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_told(name, write, tmp_path):
    changes, kind = HOSTILE[name]
    (tmp_path / "images").mkdir()
    ann_file = write(coco(**changes))
    found = check_dataset(ann_file, tmp_path / "images")
    assert found.counts.get(kind) == 1, found.text()
    assert len(found.text()) < 2500
    check_quickly(ann_file, tmp_path / "images")
    assert {path.name for path in tmp_path.iterdir()} == {"annotations.json", "images"}


#: In a process of its own, whose peak it ends with: what is said of each file.
LIMIT = """
import resource, sys
import mmgn
from mmgn.datasets.check import check_dataset
from mmgn.evaluation import analyse
from mmgn.report.predictions import read_annotations
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    try:
        found = check_dataset(path)
        print(path, *found.errors, *found.of_level("warning"))
    except Exception as error:
        print(path, "raised", type(error).__name__, error)
    try:
        truth = read_annotations(__import__("pathlib").Path(path))
        for kind in ("bbox", "segm"):
            analyse(truth, [], kind, [entry["id"] for entry in truth["categories"]])
    except (ValueError, ImportError) as error:
        assert "\\n" not in str(error), error
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_is_bounded_by_the_file(tmp_path):
    """Few bytes that ask for much, and a polygon of a million points."""
    files = {
        "deep.json": '{"images": ' + "[" * 200_000,
        "deep-objects.json": '{"a":' * 200_000,
        "rle.json": json.dumps(coco(**rle(65535, 65535, [0, 65535**2]))),
        "rle-of-the-image.json": json.dumps(
            coco(**rle(30_000, 30_000, [0, 30_000**2]), image={"width": 30_000, "height": 30_000})
        ),
        "image.json": json.dumps(coco(image={"width": 2**31 - 1, "height": 2**31 - 1})),
        "points.json": json.dumps(coco(annotation={"segmentation": [[1.5, 2.5] * 1_000_000]})),
        "digits.json": '{"images": ' + "9" * 1_000_000 + "}",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    paths = [str(tmp_path / name) for name in files]
    done = subprocess.run([sys.executable, "-c", LIMIT, *paths], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    *told, kilobytes = done.stdout.splitlines()
    assert "raised" not in done.stdout, done.stdout
    assert len(told) == len(files)
    size = sum(map(len, files.values())) / 1024
    assert int(kilobytes) < 40 * size + 300_000, done.stdout


def test_keys_given_twice_are_told(write):
    """JSON lets the last one win, silently: half a file of annotations may be gone."""
    sound = json.dumps(coco())
    whole = write(sound[:-1] + ', "annotations": []}')
    found = check_dataset(whole)
    assert found.counts["duplicate_key"] == 1 and "'annotations'" in found.text(), found.text()
    found = check_dataset(write(sound.replace('"bbox"', '"bbox": [0, 0, 1, 1], "bbox"')))
    assert found.counts["duplicate_key"] == 1 and "'bbox'" in found.text(), found.text()
    assert "duplicate_key" not in check_dataset(write(sound)).counts


def test_what_it_checks_is_evaluated_or_refused(write):
    for changes, _ in HOSTILE.values():
        content = coco(**changes)
        try:
            truth = read_annotations(Path(write(content)))
            for kind in ("bbox", "segm"):
                analyse(truth, [], kind, [1])
        except (ValueError, TypeError) as error:
            assert "\n" not in str(error)
