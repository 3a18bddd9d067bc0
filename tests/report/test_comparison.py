import json
import re
from importlib.resources import files

import jsonschema
import pytest

import mmgn.report
from mmgn.report import read_headline, write_comparison
from mmgn.report.comparison import compare
from mmgn.report.comparison_tables import results
from mmgn.report.run import read_run


def load(index):
    comparison = json.loads(index.with_name("metrics.json").read_text())
    schema = json.loads(files(mmgn.report).joinpath("schema.json").read_text())
    jsonschema.validate(comparison, schema)
    return comparison


def test_noise_is_told_from_loss(work_dir, other, tmp_path):
    index = write_comparison([work_dir, other], tmp_path / "out", replicates=200)
    comparison = load(index)
    assert [own["name"] for own in comparison["runs"]] == ["work", "other"]
    found = {(e["iou_type"], e["category_id"]): e for e in comparison["differences"]}
    assert set(found) == {(kind, cat_id) for kind in ("bbox", "segm") for cat_id in (None, 7, 3, 90)}
    for kind in ("bbox", "segm"):
        first, second = (own[f"{kind}_mAP"] for own in comparison["runs"])
        assert found[kind, None]["difference"] == pytest.approx(second - first)
        verdicts = {cat_id: found[kind, cat_id]["verdict"] for cat_id in (None, 3, 90)}
        assert verdicts == {None: "lower", 3: "lower", 90: "within noise"}
    text = index.with_name("report.md").read_text()
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in text.splitlines()]
    (row,) = (row for row in rows if row[:2] == ["other", "Box AP"])
    assert re.fullmatch(r"−\d+\.\d", row[2])
    assert row[4] == "lower"
    # Bars are as they were: no difference, in parentheses.
    assert [row[-1] for row in rows if row[0] == "bar"] == ["(+0.0)", "(+0.0)"]
    assert "other: Mask AP −" in read_headline(index)
    # An interval of 95 % for each class.
    assert text.count("Of 20 classes that do not differ, about one stands without parentheses by chance.") == 2


def test_runs_on_other_data_are_shown_but_not_compared(work_dir, other, coco_set, tmp_path):
    truth = coco_set.truth | {"annotations": coco_set.truth["annotations"][:-1]}
    (tmp_path / "fewer.json").write_text(json.dumps(truth))
    record = json.loads((other / "run.json").read_text())
    record["evaluation"]["ann_file"] = str(tmp_path / "fewer.json")
    (other / "run.json").write_text(json.dumps(record))
    comparison = load(write_comparison([work_dir, other], tmp_path / "out"))
    assert comparison["differences"] == []
    assert len([note for note in comparison["notes"] if "results on different annotations cannot be" in note]) == 2
    assert "None could be computed, see the notes." in (tmp_path / "out" / "index.html").read_text()


def test_results_files_can_be_compared_alone(work_dir, other, coco_set, tmp_path):
    prefixes = [work_dir / "results", other / "results"]
    comparison = load(write_comparison(prefixes, tmp_path / "out", ann_file=coco_set.ann_file, replicates=20))
    assert [own["work_dir"] for own in comparison["runs"]] == [str(prefix) for prefix in prefixes]
    assert len({own["name"] for own in comparison["runs"]}) == 2
    assert comparison["differences"]


def test_names_tell_runs_apart(work_dir):
    run = read_run(work_dir)
    names = [own["name"] for own in compare([run, run], replicates=2)["runs"]]
    assert names == [f"{work_dir} #1", f"{work_dir} #2"]


def test_published_rows_follow_the_run_that_they_are_held_against(work_dir, monkeypatch):
    quoted = {
        "source": "Somebody, table 1", "bbox_mAP": 0.403, "segm_mAP": 0.357, "memory_gb": 7.1, "ms_per_image": 90.9,
        "setup": {"norm": "GN (all)", "backbone": "R-50", "neck": "FPN", "schedule": "2x (24 epochs)"},
    }  # fmt: skip
    monkeypatch.setattr("mmgn.report.quoted.matching", lambda *_: [quoted])
    run = read_run(work_dir)
    table = results(compare([run, run], replicates=2))
    assert [row[0] for row in table.rows] == [f"{work_dir} #1", "Quoted: Somebody, table 1", f"{work_dir} #2"]
    assert table.kinds == {1: "quoted"}
    row = dict(zip(table.columns, table.rows[1], strict=True))
    assert (row["Norm"], row["Backbone"], row["Box AP"], row["Box AP50"]) == ("GN (all)", "R-50-FPN", "40.3", "–")
    assert (row["Memory, GiB"], row["s/iter"], row["ms/image"]) == ("7.1", "–", "90.9")


def test_one_run_is_no_comparison(work_dir, tmp_path):
    with pytest.raises(ValueError, match="needs two runs or more, got 1"):
        write_comparison([work_dir], tmp_path / "out")
    assert not (tmp_path / "out").exists()
