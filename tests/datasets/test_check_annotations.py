"""Each kind of defect is seeded, and found by its name and count alone."""

import copy
import json
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmgn.datasets.check import KINDS, check_dataset, check_quickly
from mmgn.datasets.digits import CLASSES, make_digits


def both(content, write, **kwargs):
    """The counts of a full check, which those of a quick one are equal to here."""
    ann_file, _ = write(content)
    found = check_dataset(ann_file, **kwargs)
    assert check_quickly(ann_file, **kwargs).counts == found.counts
    return found


def test_sets_without_a_defect_have_none(tmp_path, coco, write):
    digits = make_digits(tmp_path / "digits", num_train=4, num_val=2)
    found = check_dataset(digits.train_annotations, digits.train, classes=CLASSES, decode=True)
    assert found.counts == {}
    ann_file, img_dir = write(coco)
    for findings in (check_dataset(ann_file, img_dir), check_quickly(ann_file, img_dir)):
        assert findings.counts == {}
        assert findings.statistics["annotations"] == 4
        assert findings.statistics["objects_by_category"] == {"cat": 2, "dog": 2}
        assert findings.text().endswith("clean: no errors, no warnings")


def put(*path_and_value):
    """A defect: a value somewhere in the annotations."""
    *path, key, value = path_and_value

    def seed(coco):
        for step in path:
            coco = coco[step]
        coco[key] = value

    return seed


def drop(*path):
    *path, key = path

    def seed(coco):
        for step in path:
            coco = coco[step]
        del coco[key]

    return seed


def boxed(box, area=90):
    return dict(id=1, image_id=1, category_id=1, bbox=box, area=area, iscrowd=0)


A = "annotations"
HUGE = 10**400
DEFECTS = [
    (put("images", 0, "width", "64"), {"malformed_image": 1, "unknown_image_id": 2}),
    (put("images", 0, "height", -48), {"malformed_image": 1, "unknown_image_id": 2}),
    (put("images", 0, [["rubbish"]]), {"malformed_image": 1, "unknown_image_id": 2}),
    (drop("images", 0, "file_name"), {"malformed_image": 1, "unknown_image_id": 2}),
    (put(A, 0, "bbox", [1, 2, 3]), {"malformed_annotation": 1}),
    (put(A, 0, "bbox", [1, 2, 3, "4"]), {"malformed_annotation": 1}),
    (put(A, 0, "bbox", [1, 2, 3, HUGE]), {"malformed_annotation": 1}),
    (put(A, 0, "bbox", {"x": 1}), {"malformed_annotation": 1}),
    (put(A, 0, "area", None), {"malformed_annotation": 1}),
    (put(A, 0, "image_id", [1]), {"malformed_annotation": 1}),
    (put(A, 0, "category_id", {"a": []}), {"malformed_annotation": 1}),
    (put(A, 0, "id", True), {"malformed_annotation": 1}),
    (put(A, 0, 7), {"malformed_annotation": 1}),
    (drop(A, 0, "id"), {"malformed_annotation": 1}),
    (put("categories", 0, "name", 3), {"malformed_category": 1, "unknown_category": 2}),
    (put("images", 1, "id", 1), {"duplicate_image_id": 1, "unknown_image_id": 2, "image_without_objects": 1}),
    (put("images", 1, "file_name", "1.jpg"), {"duplicate_file_name": 1}),
    (put(A, 1, "id", 1), {"duplicate_annotation_id": 1}),
    (put(A, 0, "id", 0), {"annotation_id_zero": 1}),
    (put("categories", 1, "id", 1), {"duplicate_category_id": 1, "unknown_category": 2}),
    (put("categories", 1, "name", "cat"), {"duplicate_category_name": 1}),
    (put(A, 0, "image_id", 99), {"unknown_image_id": 1}),
    (put(A, 0, "category_id", 99), {"unknown_category": 1}),
    (put(A, 0, "bbox", [4, 4, float("nan"), 10]), {"box_not_finite": 1}),
    (put(A, 0, "bbox", [4, 4, float("inf"), 10]), {"box_not_finite": 1}),
    (put(A, 0, "bbox", [14, 4, -10, 10]), {"box_negative": 1}),
    (put(A, 0, "bbox", [4, 4, 0, 10]), {"box_empty": 1}),
    (put(A, 0, boxed([64, 4, 9, 9])), {"box_outside_image": 1}),
    (put(A, 0, boxed([56, 4, 10, 9])), {"box_beyond_image": 1, "mask_missing": 1}),
    (put(A, 0, "iscrowd", 2), {"iscrowd_value": 1}),
    (put(A, 0, "iscrowd", "0"), {"iscrowd_value": 1}),
    (put(A, 0, "iscrowd", []), {"iscrowd_value": 1}),
    (drop(A, 0, "iscrowd"), {"iscrowd_missing": 1}),
    (put(A, [boxed([0, 0, 0.5, 9], 4.5)]), {"nothing_to_learn": 1, "image_without_objects": 1}),
    (put(A, []), {"image_without_objects": 2}),
    (drop(A), {"image_without_objects": 2}),
    (put(A, {"1": {}}), {"malformed_file": 1}),
    (put("images", None), {"malformed_file": 1}),
    (drop("categories"), {"malformed_file": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("seed", "counts"), DEFECTS)
def test_a_seeded_defect_is_found_and_nothing_else(seed, counts, coco, tmp_path):
    seed(coco)
    (tmp_path / "annotations.json").write_text(json.dumps(coco))
    assert check_dataset(tmp_path / "annotations.json").counts == counts
    assert check_quickly(tmp_path / "annotations.json").counts == counts


@pytest.mark.parametrize("area", [0, -1, float("nan")])
def test_an_area_that_is_not_positive(area, coco, write):
    coco["annotations"] = [boxed([4, 4, 10, 10], area)]
    found = check_dataset(write(coco)[0])
    assert found.counts.pop("nothing_to_learn", 0) == (area == area)
    assert found.counts == {"area_not_positive": 1, "image_without_objects": 1}


@pytest.mark.parametrize(
    ("classes", "counts"),
    [
        (("cat", "dog"), {}),
        (("bird", "cow"), {"no_common_class": 1}),
        (("cat",), {"unused_category": 1}),
        (("dog",), {"unused_category": 1}),
        (("cat", "dog", "cow"), {"class_without_category": 1}),
        (("dog", "cat"), {"mislabelled_class": 2}),
        (("cow", "cat", "dog"), {"class_without_category": 1, "mislabelled_class": 2}),
    ],
)
def test_classes_against_categories(classes, counts, coco, write):
    found = both(coco, write, classes=classes)
    assert found.counts == counts
    if "mislabelled_class" in counts:
        assert f"label 0 is category 'cat', but classes[0] is '{classes[0]}'" in found.text()


def test_figures_are_what_mmdet_makes_of_the_file(coco, write):
    from mmdet.datasets import CocoDataset

    extra = [([0, 0, 0.5, 9], 4.5, 1), ([70, 0, 9, 9], 81, 1), ([4, 4, 9, 9], 0, 1), ([4, 4, 9, 9], 81, 3)]
    coco["annotations"][3]["ignore"] = 1
    for i, (box, area, category) in enumerate(extra, 10):
        coco["annotations"].append({**boxed(box, area), "id": i, "category_id": category})
    ann_file, _ = write(coco)
    classes = dict(classes=("cat", "dog"))
    dataset = CocoDataset(ann_file=str(ann_file), data_prefix=dict(img=""), metainfo=classes, pipeline=[])
    used = sum(len(dataset.get_data_info(i)["instances"]) for i in range(len(dataset)))
    assert check_dataset(ann_file).statistics["left_out_of_training"] == len(coco["annotations"]) - used == 5


@pytest.mark.parametrize(
    "text",
    ["", "{", "[" * 100_000, '{"images": ' + "[" * 100_000, "[]", "3", '"images"', "\x00\xff", "1" * 5000],
    ids=["empty", "cut", "deep", "deep inside", "list", "number", "string", "bytes", "long number"],
)
def test_rubbish_is_told_and_nothing_raised(text, tmp_path):
    ann_file = tmp_path / "rubbish.json"
    ann_file.write_bytes(text.encode("latin-1"))
    for check in (check_dataset, check_quickly):
        found = check(ann_file)
        assert found.counts == {"malformed_file": 1}
        assert len(found.text()) < 1000


def test_hostile_text_takes_no_longer_than_its_length(tmp_path):
    file = tmp_path / "annotations.json"
    file.write_text('"segmentation": [[1,' * 50_000)
    before = time.process_time()
    assert check_quickly(file).counts == {"malformed_file": 1}
    # CPU time: to read on from each opening to the end takes half a minute.
    assert time.process_time() - before < 5


def test_nested_rubbish_in_an_entry_is_shown_in_a_line(coco, write):
    nested = []
    for _ in range(500):
        nested = [nested, "\x1b[31m" + "x" * 500]
    coco["annotations"][0]["bbox"] = nested
    found = both(coco, write)
    assert found.counts == {"malformed_annotation": 1}
    assert len(found.text()) < 1500
    assert "\x1b" not in found.text()


def test_a_quick_check_looks_at_files_from_the_first_to_the_last(tmp_path):
    images = [{"id": n, "file_name": f"{n}.png", "width": 8, "height": 8} for n in range(50)]
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps({"images": images, "annotations": [], "categories": []}))
    missing = check_quickly(path, tmp_path, images=5).examples["missing_image"]
    assert [text.split(",")[0] for text in missing] == ["image 0", "image 12", "image 24"]
    assert check_quickly(path, tmp_path, images=5).counts["missing_image"] == 5
    Image.new("RGB", (8, 8)).save(tmp_path / "49.png")
    assert check_quickly(path, tmp_path, images=5).counts["missing_image"] == 4
    assert check_quickly(path, tmp_path, images=90).counts["missing_image"] == 49


def test_a_quick_check_reads_whatever_way_the_json_is_laid_out(coco, tmp_path):
    coco["annotations"][0]["note"] = '"segmentation": [[1, 2], [3]]'
    coco["annotations"][1]["category_id"] = 9
    for i, style in enumerate((dict(), dict(indent=2), dict(separators=(",", ":")))):
        path = tmp_path / f"{i}.json"
        path.write_text(json.dumps(coco, **style))
        assert check_quickly(path).counts == {"unknown_category": 1}


def test_examples_are_limited_and_the_rest_counted(coco, write):
    for annotation in coco["annotations"]:
        annotation["category_id"] = 9
    found = check_dataset(write(coco)[0], examples=2)
    assert len(found.examples["unknown_category"]) == 2
    assert "annotation 1 of image 1 ('1.jpg'): category_id 9" in found.text()
    assert "... and 2 more" in found.text()
    data = json.loads(json.dumps(found.as_dict()))
    assert data["counts"]["unknown_category"] == 4
    assert data["levels"]["unknown_category"] == KINDS["unknown_category"][0] == "error"
    assert data["clean"] is False


def test_numbers_at_the_end_of_the_range_neither_overflow_nor_warn(coco, write, recwarn):
    coco["annotations"][0].update(bbox=[1e308, 1e308, 1e308, 1e308], area=1e308)
    coco["annotations"][1]["segmentation"] = [[1e308, -1e308, 1e308, 1e308, -1e308, 1e308]]
    del coco["annotations"][2]["segmentation"]
    coco["annotations"][2].update(bbox=[0, 0, 1e308, 1e308], area=1e308)
    found = check_dataset(write(coco)[0])
    assert {"box_outside_image", "mask_outside_box", "polygon_outside_image", "box_beyond_image"} <= set(found.counts)
    assert not [warning for warning in recwarn if issubclass(warning.category, RuntimeWarning)]


def evaluate(coco):
    """Box AP of detections that are the truth, by pycocotools."""
    truth = COCO()
    truth.dataset = coco
    truth.createIndex()
    keys = ("image_id", "category_id", "bbox")
    found = truth.loadRes([{**{key: a[key] for key in keys}, "score": 0.9} for a in coco["annotations"]])
    evaluation = COCOeval(truth, found, "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats[0]


def test_evaluation_does_what_the_kinds_say_of_it(coco):
    coco["annotations"] = coco["annotations"][:2]
    assert evaluate(coco) == pytest.approx(1)
    coco["annotations"][0]["id"] = 0
    assert evaluate(coco) == pytest.approx(0.5)
    coco["annotations"][0]["id"] = 1
    del coco["annotations"][0]["iscrowd"]
    with pytest.raises(KeyError, match="iscrowd"):
        evaluate(coco)


def test_mmdet_does_what_the_kinds_say_of_it(coco, write):
    from mmdet.datasets import CocoDataset
    from mmdet.datasets.transforms import LoadAnnotations

    def load(*classes):
        ann_file, _ = write(coco)
        settings = dict(data_prefix=dict(img=""), metainfo=dict(classes=classes), pipeline=[])
        return CocoDataset(ann_file=str(ann_file), **settings).get_data_info(0)

    labels = [instance["bbox_label"] for instance in load("dog", "cat")["instances"]]
    assert labels == [coco["categories"].index({"id": i, "name": name}) for i, name in ((1, "cat"), (2, "dog"))]
    del coco["annotations"][0]["segmentation"]
    with pytest.raises(KeyError, match="mask"):
        LoadAnnotations(with_mask=True)({**load("cat", "dog"), "ori_shape": (48, 64)})
    coco["annotations"][1]["id"] = 1
    with pytest.raises(AssertionError, match="not unique"):
        load("cat", "dog")


RUBBISH = [None, True, 0, -1, 2**70, 1.5, float("nan"), float("inf"), -1e308, "", "x", [], [[]], [1], {}, {"counts": 3}]


def places(node, path=()):
    """Every place in nested lists and dicts."""
    keys = node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
    for key in keys:
        yield (*path, key)
        yield from places(node[key], (*path, key))


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_rubbish_anywhere_raises_nothing(coco, tmp_path, data):
    coco = copy.deepcopy(coco)
    for _ in range(data.draw(st.integers(1, 3))):
        *path, key = data.draw(st.sampled_from(list(places(coco))))
        node = coco
        for step in path:
            node = node[step]
        # A copy, as the next round may put something into it.
        node[key] = copy.deepcopy(data.draw(st.sampled_from(RUBBISH)))
    (tmp_path / "annotations.json").write_text(json.dumps(coco))
    for found in (
        check_dataset(tmp_path / "annotations.json", tmp_path, classes=("cat", "dog")),
        check_quickly(tmp_path / "annotations.json", tmp_path, classes=("cat", "dog")),
    ):
        assert len(found.text()) < 20_000
        json.dumps(found.as_dict())
