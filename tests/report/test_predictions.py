import json
from importlib.resources import files

import jsonschema
import pytest

import mmgn.report
from mmgn.report import write_report
from mmgn.report.predictions import find_predictions
from mmgn.report.workdir import WorkDir, read_work_dir


def test_recorded_ones_are_found(work_dir, coco_set):
    found = find_predictions(read_work_dir(work_dir), None, None, None)
    assert found.results == coco_set.results
    assert [category["id"] for category in found.categories] == [7, 3, 90]
    assert (found.ann_file, found.img_dir) == (coco_set.ann_file, coco_set.img_dir)


def test_categories_are_those_of_the_model(work_dir):
    work = read_work_dir(work_dir)
    work.record["evaluation"]["classes"] = ["bar"]
    assert [category["id"] for category in find_predictions(work, None, None, None).categories] == [90]
    for unknown in (["elephant"], None):
        work.record["evaluation"]["classes"] = unknown
        assert [category["id"] for category in find_predictions(work, None, None, None).categories] == [7, 3, 90]


def test_results_move_with_the_work_directory(work_dir):
    moved = work_dir.rename(work_dir.with_name("moved"))
    # What a new run writes in the old place is none of its business.
    work_dir.mkdir()
    (work_dir / "results.segm.json").write_text("[]")
    work = read_work_dir(moved)
    assert find_predictions(work, None, None, None).files["segm"] == moved / "results.segm.json"


def test_without_any_the_way_to_them_is_told(tmp_path):
    work = WorkDir(tmp_path, last_checkpoint="/w/epoch_3.pth", record={"train": {"config": "c.py"}})
    assert find_predictions(work, None, None, None) is None
    option = f"--cfg-options test_evaluator.outfile_prefix={tmp_path / 'results'}"
    command = f"python tools/test.py {tmp_path / 'c.py'} /w/epoch_3.pth --work-dir {tmp_path} {option}"
    assert work.notes == [f"No predictions found in {tmp_path}: run `{command}`."]


def test_recorded_but_missing_is_a_note(work_dir, coco_set):
    coco_set.ann_file.unlink()
    work = read_work_dir(work_dir)
    assert find_predictions(work, None, None, None) is None
    assert work.notes == [f"No annotation file {coco_set.ann_file}: give the right one with --ann-file."]
    work.record["evaluation"]["ann_file"] = None
    assert find_predictions(work, None, None, None) is None
    assert "by: give --ann-file and --img-dir." in work.notes[1]
    for file in work_dir.glob("results.*"):
        file.unlink()
    work = read_work_dir(work_dir)
    assert find_predictions(work, None, None, None) is None
    assert "No predictions found: there is neither" in work.notes[0]


def test_given_but_missing_is_an_error(work_dir, tmp_path):
    work = read_work_dir(work_dir)
    with pytest.raises(FileNotFoundError, match=r"neither .*nothing\.bbox\.json nor .*nothing\.segm\.json"):
        find_predictions(work, None, None, tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match=r"No annotation file .*none\.json: give the right one with --ann-file"):
        find_predictions(work, tmp_path / "none.json", None, None)
    with pytest.raises(FileNotFoundError, match=r"No annotations to judge .* by: give --ann-file"):
        find_predictions(WorkDir(tmp_path), None, None, work_dir / "results")


@pytest.mark.parametrize(("key", "kind"), [("image_id", "images"), ("category_id", "categories")])
def test_results_of_another_data_set(work_dir, coco_set, key, kind):
    bbox = coco_set.results["bbox"]
    (work_dir / "results.bbox.json").write_text(json.dumps([*bbox, bbox[0] | {key: 555}]))
    known = {"images": 12, "categories": 3}[kind]
    said = rf"results.bbox.json: 1 of its \d+ different {key} are not in .*, which has {known} {kind} "
    with pytest.raises(ValueError, match=rf"{said}\(first unknown: 555\); give the annotation file .*--ann-file"):
        find_predictions(read_work_dir(work_dir), None, None, None)


@pytest.mark.parametrize("mask", [{"size": [320, 300], "counts": "a"}, {"size": [320, 320]}, [[1, 2, 3]]])
def test_masks_of_other_images(work_dir, coco_set, mask):
    results = coco_set.results["segm"]
    results[2]["segmentation"] = mask
    (work_dir / "results.segm.json").write_text(json.dumps(results))
    with pytest.raises(ValueError, match=r"the mask of entry 2 must be an RLE of height and width \[320, 320\]"):
        find_predictions(read_work_dir(work_dir), None, None, None)


def test_scores_may_be_beyond_0_and_1(work_dir, coco_set, tmp_path):
    """Mask Scoring R-CNN's are a product with an IoU that a layer without bounds predicts."""
    results = [entry | {"score": 3 * entry["score"] - 1} for entry in coco_set.results["segm"]]
    (work_dir / "results.segm.json").write_text(json.dumps(results))
    index = write_report(work_dir, tmp_path / "out")
    schema = json.loads(files(mmgn.report).joinpath("schema.json").read_text())
    written = json.loads(index.with_name("metrics.json").read_text())
    jsonschema.validate(written, schema)
    # A threshold is one of the scores as they are.
    best = [row["segm_best_score"] for row in written["per_class"]]
    assert min(best) < 0, best


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[{", "is not valid JSON .*write it again"),
        ("{}", "must hold COCO results, a list, got a JSON dict"),
        ('[{"image_id": 1, "score": 1}]', "entry 0 lacks category_id, bbox: {'image_id': 1"),
        ("[3]", "entry 0 lacks image_id"),
        ("[" * 10_000, "is not valid JSON"),
        (
            '[{"image_id": [1], "category_id": 7, "score": 1, "bbox": [1, 2, 3, 4]}]',
            "1 of its 1 different image_id are not",
        ),
        (
            '[{"image_id": 1, "category_id": 7, "score": "1", "bbox": [1, 2, 3, 4]}]',
            "score of entry 0 must be finite",
        ),
        (
            '[{"image_id": 1, "category_id": 7, "score": -Infinity, "bbox": [1, 2, 3, 4]}]',
            "score of entry 0 must be finite, got -inf",
        ),
    ],
)
def test_damaged_results(work_dir, text, message):
    (work_dir / "results.bbox.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        find_predictions(read_work_dir(work_dir), None, None, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": []}', "has no list 'categories'"),
        ('{"images": [{"id": 1}]}', "images: entry 0 lacks file_name, width, height"),
        ("[]", "must hold COCO annotations"),
        (
            '{"images": [{"id": {}, "file_name": "a", "width": 8, "height": 8}], "categories": []}',
            "id must be an integer",
        ),
        (
            '{"images": [], "categories": [{"id": 1, "name": "a"}, {"id": "b", "name": "b"}]}',
            "ids of categories are numbers",
        ),
    ],
)
def test_damaged_annotations(work_dir, coco_set, text, message):
    coco_set.ann_file.write_text(text)
    with pytest.raises(ValueError, match=message):
        find_predictions(read_work_dir(work_dir), None, None, None)
