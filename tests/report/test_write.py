import base64
import hashlib
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from PIL import Image

import mmgn.report
from mmgn.report import read_headline, write_report
from mmgn.report.page import _embedded

VOID = {"meta", "img", "br", "line"}
SVG_LINKS = re.compile(r"^#[\w-]+$")
SCHEMA = json.loads((Path(mmgn.report.__file__).parent / "schema.json").read_text())


class Page(HTMLParser):
    """Checks the nesting of tags and collects text, tags, addresses and scripts."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.addresses, self.text, self.cells = [], set(), [], "", []
        self.scripts, self.ids, self.policy = [], [], None
        self.feed(html)
        assert not self.open
        assert len(self.ids) == len(set(self.ids))

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.addresses += [value for name, value in attrs if name in {"src", "href", "xlink:href", "action", "data"}]
        self.ids += [value for name, value in attrs if name == "id"]
        if ("http-equiv", "Content-Security-Policy") in attrs:
            self.policy = dict(attrs)["content"]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
            return
        self.text += data
        if self.open and self.open[-1] in {"td", "th", "dt", "dd", "li", "pre"}:
            self.cells.append(data)


def load(index):
    def no_constants(name):
        raise AssertionError(f"{name} is not JSON")

    metrics = json.loads(index.with_name("metrics.json").read_text(), parse_constant=no_constants)
    jsonschema.validate(metrics, SCHEMA)
    return metrics


def test_files_and_metrics(work_dir, coco_set):
    index = write_report(work_dir, max_images=4)
    assert index == work_dir / "report" / "index.html"
    names = {path.name for path in index.parent.iterdir()}
    assert {"index.html", "report.md", "metrics.json", "curve-loss.png", "gallery-04-truth.jpg"} <= names
    assert not [name for name in names if name.startswith(".")]
    metrics = load(index)
    figures = ["mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l"]
    figures += ["AR_1", "AR_10", "AR_100", "AR_s", "AR_m", "AR_l"]
    for kind in ("bbox", "segm"):
        assert all(0 < metrics[f"{kind}_{name}"] < 1 for name in figures)
    assert metrics["bbox_mAP"] != metrics["segm_mAP"]
    assert [row["name"] for row in metrics["per_class"]] == ["<script>disc</script>", "box|*a_b*", "bar"]
    assert sum(row["num_objects"] for row in metrics["per_class"]) == len(coco_set.truth["annotations"])
    assert 0 < metrics["per_class"][2]["segm_AP_75"] < 1
    known = {
        "train_seconds": 3725.0,
        "train_complete": True,
        "peak_memory_mb": 1234.5,
        "peak_memory_kind": "CUDA allocated",
        "seed": 5,
        "device": "Imaginary <GPU>",
        "num_images": 12,
        "checkpoint": "/elsewhere/epoch_2.pth",
        "config": "/configs/<img src=x>.py",
        "versions": {"torch": "2.9", "nested": {"a": None, "b": [1, 2]}},
        "iterations": 40,
        "last_loss": 0.75,
        "notes": [],
    }
    assert {key: metrics[key] for key in known} == known
    assert metrics["config_text"].startswith("# 20250101_000000\n")


def test_page_is_escaped_and_asks_the_network_for_nothing(work_dir, coco_set):
    # A file name is a string from outside as well.
    coco_set.truth["images"][0]["file_name"] = '"><svg onload=alert(1)>.png'
    coco_set.ann_file.write_text(json.dumps(coco_set.truth))
    html = write_report(work_dir).read_text()
    page = Page(html)
    assert not page.tags & {"link", "iframe", "object", "base"}
    assert all(address.startswith("data:image/") or SVG_LINKS.match(address) for address in page.addresses)
    assert not re.search(r"url\((?!#)", html)
    assert "@import" not in html
    assert {"<script>disc</script>", "box|*a_b*", "Imaginary <GPU>", "/configs/<img src=x>.py"} <= set(page.cells)
    assert "model = '</pre><script>alert(1)</script>'" in page.text
    assert '"><svg onload=alert(1)>.png: not in' in page.text
    assert len([address for address in page.addresses if address.startswith("data:")]) == 22
    # The data, and the one script that may run.
    data, script = page.scripts
    assert set(json.loads(data)) == {"curves", "calibration"}
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert page.policy.startswith("default-src 'none'; ")
    assert page.policy.endswith(f"script-src 'sha256-{digest}'")


def test_data_cannot_end_their_element():
    text = _embedded({"name": "</script><!-- <script>"})
    assert "<" not in text
    assert json.loads(text) == {"name": "</script><!-- <script>"}


def test_tables_of_page_and_markdown_say_what_metrics_say(work_dir):
    index = write_report(work_dir)
    metrics = load(index)
    rows = [line.strip("| ").split(" | ") for line in index.with_name("report.md").read_text().splitlines()]
    cells = {row[0]: row for row in rows if len(row) > 1}
    box, mask = (f"{100 * metrics[f'{kind}_mAP_75']:.1f}" for kind in ("bbox", "segm"))
    assert cells["AP75"] == ["AP75", box, mask, ".75", "all", "100"]
    source = "Measured on Imaginary &lt;GPU&gt;, validation included"
    assert cells["Training time"] == ["Training time", "1 h 02 min", source]
    page = Page(index.read_text())
    at = page.cells.index("AP75")
    assert page.cells[at : at + 6] == cells["AP75"]
    at = page.cells.index("Classification")
    assert page.cells[at : at + 4] == cells["Classification"]
    headline = read_headline(index)
    assert f"{100 * metrics['bbox_mAP']:.1f}  Computed from results.bbox.json" in headline
    assert "1,234 MiB  Measured, CUDA allocated" in headline


def test_markdown_is_escaped_and_its_pictures_exist(work_dir):
    index = write_report(work_dir)
    text = index.with_name("report.md").read_text()
    prose, config = text.split("<details>")
    assert "<" not in prose
    assert "&lt;script&gt;disc&lt;/script&gt;" in prose
    assert r"box\|\*a_b\*" in prose
    assert "model = '</pre><script>alert(1)</script>'" in re.search(r"```python\n(.*)\n```", config, re.S)[1]
    pictures = re.findall(r"\]\(([^)]+)\)", prose)
    assert len(pictures) == 4 + 2 * 12
    assert all(index.with_name(name).is_file() for name in pictures)
    columns = [line.count("|") - line.count(r"\|") for line in prose.splitlines() if line.startswith("| ")]
    # The truth's, the headline's, errors', calibration's, operating points', COCO's and classes' tables.
    assert set(columns) == {3, 4, 5, 6, 7, 17}


def test_a_fence_in_the_configuration_does_not_end_it(work_dir):
    config = work_dir / "20250101_000000" / "vis_data" / "config.py"
    config.write_text("a = '''\n````\n'''")
    text = write_report(work_dir).with_name("report.md").read_text()
    assert "\n`````python\na = '''\n````\n'''\n`````\n" in text


def test_curves_only(tmp_path, lines):
    val = {"coco/bbox_mAP": 0.25, "coco/segm_mAP": -1.0, "step": 1}
    lines.write(tmp_path, "20250101_000000", [lines.train(10, math.nan, memory=512, epoch=1), val])
    (tmp_path / "last_checkpoint").write_text("/w/epoch_1.pth")
    index = write_report(tmp_path)
    metrics = load(index)
    assert (metrics["bbox_mAP"], metrics["segm_mAP"], metrics["num_images"], metrics["train_seconds"]) == (None,) * 4
    assert metrics["logged_validation"] == {
        "step": 1,
        "after_iteration": 10,
        "coco/bbox_mAP": 0.25,
        "coco/segm_mAP": None,
    }
    assert (metrics["peak_memory_mb"], metrics["last_loss"], metrics["nonfinite_losses"]) == (512, None, 1)
    page = Page(index.read_text())
    assert "run `python tools/test.py CONFIG /w/epoch_1.pth --work-dir" in page.text
    assert "there is no run.json" in page.text
    assert "The loss is not finite on 1 of 1 lines, first at iteration 10." in page.text
    at = page.cells.index("Box AP, last validation")
    assert page.cells[at : at + 3] == ["Box AP, last validation", "25.0", "Logged after iteration 10"]
    at = page.cells.index("Mask AP")
    assert page.cells[at : at + 3] == ["Mask AP", "–", "No predictions"]


def test_plain_run_with_predictions_named(work_dir, coco_set, tmp_path):
    expected = load(write_report(work_dir))
    (work_dir / "run.json").unlink()
    out = tmp_path / "elsewhere" / "report"
    index = write_report(
        work_dir,
        out,
        ann_file=coco_set.ann_file,
        img_dir=coco_set.img_dir,
        results_prefix=work_dir / "results",
    )
    assert index.parent == out
    metrics = load(index)
    assert (metrics["segm_mAP"], metrics["seed"]) == (expected["segm_mAP"], None)


def test_predictions_without_any_training(work_dir, coco_set, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    index = write_report(empty, ann_file=coco_set.ann_file, results_prefix=work_dir / "results")
    metrics = load(index)
    assert metrics["segm_mAP"] > 0
    assert any("No training curves" in note for note in metrics["notes"])
    assert "000.png: not in the current folder" in Page(index.read_text()).text


def test_gaps_and_contradictions_are_told(work_dir, coco_set):
    record = json.loads((work_dir / "run.json").read_text())
    record["train"] |= {"ended": None, "first_iter": 20}
    record["evaluation"] |= {"num_images": 5, "metrics": {"coco/bbox_mAP": 0.999, "coco/segm_mAP": None}}
    (work_dir / "run.json").write_text(json.dumps(record))
    (work_dir / "results.segm.json").write_text("[]")
    coco_set.truth["annotations"][0]["id"] = 0
    coco_set.ann_file.write_text(json.dumps(coco_set.truth))
    metrics = load(write_report(work_dir))
    assert (metrics["segm_mAP"], metrics["segm_AR_100"], metrics["train_complete"]) == (0, 0, False)
    assert len(metrics["notes"]) == len(set(metrics["notes"]))
    for told in (
        "Training did not end: the last record is of iteration 40.",
        "Training time counts from iteration 20",
        "results.segm.json is empty",
        "5 images were run, but",
        "has id 0",
        "but 0.999 was logged",
    ):
        assert [note for note in metrics["notes"] if told in note], told


def test_objects_are_those_that_are_to_be_found(work_dir, coco_set):
    """No crowds, and none of the classes that the model has not."""
    record = json.loads((work_dir / "run.json").read_text())
    record["evaluation"]["classes"] = ["bar"]
    (work_dir / "run.json").write_text(json.dumps(record))
    bars = [entry for entry in coco_set.truth["annotations"] if entry["category_id"] == 90]
    bars[0]["iscrowd"] = 1
    coco_set.ann_file.write_text(json.dumps(coco_set.truth))
    shown = {entry["image_id"] for entry in bars[1:]}
    assert len(shown) < 12
    for kind in ("bbox", "segm"):
        own = [e for e in coco_set.results[kind] if e["category_id"] == 90 and e["image_id"] in shown]
        (work_dir / f"results.{kind}.json").write_text(json.dumps(own))
    metrics = load(write_report(work_dir))
    assert metrics["num_objects"] == metrics["per_class"][0]["num_objects"] == len(bars) - 1
    assert metrics["num_objects"] == sum(map(sum, metrics["errors"]["bbox"]["confusion"]["matrix"][:-1]))
    # Few of the images have detections, but most of those with bars.
    assert not [note for note in metrics["notes"] if "have detections" in note]


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ({"score": math.nan}, "No segm figures: Detection scores must not be NaN."),
        ({"segmentation": {"size": [320, 320], "counts": [0, 102400]}}, "No segm figures: 1 of {} results have masks "),
        ({"segmentation": {"size": [320, 320], "counts": "o" * 100}}, "No segm figures: 1 of {} results have masks "),
        # 2**20 pixels.
        ({"segmentation": {"size": [320, 320], "counts": "0PPPP1"}}, "No segm figures: 1 of {} results have masks "),
    ],
    ids=["score", "uncompressed", "malformed", "too long"],
)
def test_broken_masks_leave_the_boxes(work_dir, coco_set, broken, told):
    results = coco_set.results["segm"]
    results[1] |= broken
    (work_dir / "results.segm.json").write_text(json.dumps(results))
    metrics = load(write_report(work_dir))
    assert metrics["segm_mAP"] is None
    assert metrics["bbox_mAP"] > 0
    (note,) = metrics["notes"]
    assert note.startswith(told.format(len(results)))
    # Not the annotations' fault.
    assert "annotations.json" not in note


def test_a_loss_that_is_no_number_is_told(tmp_path, lines):
    lines.write(tmp_path, "20250101_000000", [lines.train(10, 1), lines.train(20, 2) | {"loss": "x"}])
    metrics = load(write_report(tmp_path))
    assert (metrics["nonfinite_losses"], metrics["last_loss"]) == (1, None)
    assert "The loss is not finite on 1 of 2 lines, first at iteration 20." in metrics["notes"]


def test_results_that_cover_few_images_are_told(work_dir):
    for kind in ("bbox", "segm"):
        file = work_dir / f"results.{kind}.json"
        file.write_text(json.dumps([entry for entry in json.loads(file.read_text()) if entry["image_id"] < 4]))
    (note,) = (note for note in load(write_report(work_dir))["notes"] if "have detections" in note)
    assert note.startswith("Only 4 of the 12 images with objects have detections: make sure")


def test_annotations_without_masks(work_dir, coco_set):
    for annotation in coco_set.truth["annotations"]:
        del annotation["segmentation"]
    coco_set.ann_file.write_text(json.dumps(coco_set.truth))
    index = write_report(work_dir)
    metrics = load(index)
    assert metrics["bbox_mAP"] > 0
    assert metrics["segm_mAP"] is None
    assert [note for note in metrics["notes"] if "annotations have no 'segmentation'" in note]
    assert "Not computable from results.segm.json" in Page(index.read_text()).cells


def test_nothing_is_written_when_something_is_wrong(work_dir, tmp_path):
    index = write_report(work_dir)
    before = {path: path.read_bytes() for path in index.parent.iterdir()}
    (work_dir / "results.bbox.json").write_text("[{")
    with pytest.raises(ValueError, match="not valid JSON"):
        write_report(work_dir)
    assert {path: path.read_bytes() for path in index.parent.iterdir()} == before
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty is no work directory of a run"):
        write_report(tmp_path / "empty")
    with pytest.raises(ValueError, match="max_images must not be negative, got -1"):
        write_report(work_dir, max_images=-1)
    assert not (tmp_path / "empty" / "report").exists()


def test_a_new_report_takes_the_place_of_the_old(work_dir):
    index = write_report(work_dir, max_images=4)
    own = index.with_name("gallery-of-mine.jpg")
    own.write_bytes(b"")
    write_report(work_dir, max_images=1)
    names = {path.name for path in index.parent.glob("gallery-*")}
    assert names == {"gallery-01-truth.jpg", "gallery-01-predictions.jpg", own.name}


def test_nothing_is_left_behind_where_writing_fails(work_dir):
    (work_dir / "report" / "report.md").mkdir(parents=True)
    with pytest.raises(OSError, match=r"report\.md"):
        write_report(work_dir)
    assert not list((work_dir / "report").glob(".*"))


def test_same_input_same_bytes(work_dir):
    index = write_report(work_dir)
    before = {path.name: path.read_bytes() for path in index.parent.iterdir()}
    write_report(work_dir)
    assert {path.name: path.read_bytes() for path in index.parent.iterdir()} == before


def test_report_knows_no_model():
    for path in Path(mmgn.report.__file__).parent.glob("*.py"):
        imported = set(re.findall(r"^\s*(?:import|from) (\w+)", path.read_text(), re.M))
        assert not imported & {"torch", "torchvision", "mmengine", "mmcv", "mmdet"}


def test_a_run_of_mmdet_itself(work_dir, coco_set):
    """No run.json: figures come from the configuration that MMEngine dumps, with setup and speed beside them."""
    expected = load(write_report(work_dir))
    (work_dir / "run.json").unlink()
    config = f"""
model = dict(backbone=dict(depth=101, norm_cfg=dict(num_groups=32, type='GN'), type='ResNet'), type='FCOS')
test_dataloader = dict(dataset=dict(data_prefix=dict(img=''), data_root={str(coco_set.img_dir)!r}))
test_evaluator = dict(ann_file={str(coco_set.ann_file)!r}, outfile_prefix={str(work_dir / "results")!r})
train_cfg = dict(max_epochs=24)
val_dataloader = dict(batch_size=4)
"""
    (work_dir / "20250101_000000" / "vis_data" / "config.py").write_text(config)
    scalars = work_dir / "20250101_000000" / "vis_data" / "scalars.json"
    scalars.write_text(scalars.read_text().replace('"step": 1}', '"step": 1, "time": 0.5}'))
    metrics = load(write_report(work_dir))
    for key in ("bbox_mAP", "segm_AR_100", "per_class", "errors", "hardest_images", "img_dir"):
        assert metrics[key] == expected[key], key
    assert (metrics["model"], metrics["setup"]["norm"], metrics["setup"]["backbone"]) == ("FCOS", "GN", "R-101")
    assert metrics["setup"]["schedule"] == "2x (24 epochs), from scratch"
    assert (metrics["ms_per_image"], metrics["ms_per_image_kind"]) == (125, "validation loop, from the log")


def test_five_thousand_images_make_a_page_below_ten_megabytes(tmp_path):
    rng = np.random.default_rng(0)
    # One photograph for all, of noise, which no JPEG makes small.
    Image.fromarray(rng.integers(0, 256, (480, 640, 3), dtype=np.uint8)).save(tmp_path / "noise.png")
    images = [{"id": i, "file_name": "noise.png", "width": 640, "height": 480} for i in range(5000)]
    names = [{"id": k, "name": f"category number {k}"} for k in range(1, 81)]
    objects, results = [], []
    for number, (x, y, w, h) in enumerate(rng.uniform(10, 300, (36_000, 4)).round(1).tolist()):
        entry = {"image_id": number // 8, "category_id": 1 + int(rng.integers(80))}
        objects.append(entry | {"id": number + 1, "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0})
        label = entry["category_id"] if rng.random() < 0.7 else 1 + int(rng.integers(80))
        found = {"image_id": entry["image_id"], "category_id": label, "score": round(rng.random(), 3)}
        results.append(found | {"bbox": [x + 5, y, w, h]})
    (tmp_path / "val.json").write_text(json.dumps({"images": images, "annotations": objects, "categories": names}))
    (tmp_path / "results.bbox.json").write_text(json.dumps(results))
    index = write_report(
        tmp_path / "results.bbox.json",
        tmp_path / "out",
        ann_file=tmp_path / "val.json",
        img_dir=tmp_path,
        max_images=200,
    )
    metrics = load(index)
    assert (metrics["num_images"], metrics["num_objects"], len(metrics["per_class"])) == (5000, 36_000, 80)
    assert 2e6 < index.stat().st_size < 10e6
    assert "the pictures weigh 5 MB, the most here" in index.read_text()


def test_as_many_classes_as_lvis_has_make_a_page_without_the_matrix(tmp_path):
    names = [{"id": k, "name": f"category number {k}"} for k in range(1, 1204)]
    objects = [
        {"image_id": k % 50, "category_id": k, "bbox": [k % 90, 10, 30, 30], "area": 900} for k in range(1, 1204)
    ]
    truth = {"images": [{"id": i, "file_name": f"{i}.png", "width": 128, "height": 64} for i in range(50)]}
    truth |= {"annotations": [entry | {"id": entry["category_id"], "iscrowd": 0} for entry in objects]}
    (tmp_path / "val.json").write_text(json.dumps(truth | {"categories": names}))
    found = [entry | {"score": 0.9, "category_id": 1 + entry["category_id"] % 1203} for entry in objects]
    (tmp_path / "results.bbox.json").write_text(json.dumps(found))
    index = write_report(tmp_path / "results.bbox.json", tmp_path / "out", ann_file=tmp_path / "val.json")
    page = index.read_text()
    assert "The whole matrix of 1203 classes is in metrics.json." in page
    assert 'aria-label="Confusion matrix"' not in page
    assert len(page) < 10e6
    assert len(load(index)["errors"]["bbox"]["confusion"]["matrix"]) == 1204
