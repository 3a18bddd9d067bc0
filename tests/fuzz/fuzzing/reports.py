"""Work directories of any content: a report that is a sound page and sound data, or an error that is documented.

A corpus' file is JSON of the directory's files by their names: text, or what is written as JSON.
"""

import json
import re
import shutil
import warnings
import zlib
from html.parser import HTMLParser
from pathlib import Path
from random import Random
from typing import Any

import jsonschema
from PIL import Image

import mmgn.report
from fuzzing import trees
from mmgn.report import markdown, page, read_headline, write_report
from mmgn.report.gallery import draw_gallery
from mmgn.report.metrics import collect_metrics
from mmgn.report.run import read_run

warnings.filterwarnings("ignore")
_RUN = "20250101_000000/vis_data"
_RESULTS = ("results.bbox.json", "results.segm.json")
_NAMES = ("run.json", f"{_RUN}/scalars.json", f"{_RUN}/config.py", "annotations.json", *_RESULTS)
_SCHEMA = json.loads((Path(mmgn.report.__file__).parent / "schema.json").read_text())
# Of a run alone, so that a failure names the value that is at fault.
_RUNS_METRICS = jsonschema.Draft202012Validator({"$defs": _SCHEMA["$defs"], "$ref": "#/$defs/run"})
_VOID = {"meta", "img", "br", "line"}
# Of 12 x 16 pixels: two boxes and a triangle.
_RUNS = ("j0570000000Z3", "T1X2d2", "V167O1O1O1O1O]2")
_CONFIG = """
model = dict(type='MaskRCNN', backbone=dict(type='ResNet', depth=50, norm_cfg=dict(type='FusedGN', num_groups=32)),
             neck=dict(type='FPN'), roi_head=dict(bbox_head=dict(type='Shared4Conv1FCBBoxHead')))
train_cfg = dict(max_epochs=24)
param_scheduler = [dict(type='MultiStepLR', milestones=[16, 22])]
val_dataloader = dict(batch_size=1)
test_evaluator = dict(ann_file='annotations.json', outfile_prefix='results')
"""


def fresh(rng: Random) -> bytes:
    """Return a small run that was trained and evaluated, with masks or without."""
    images = [{"id": i, "file_name": f"{i}.png", "width": 16, "height": 12} for i in range(2)]
    truth: dict[str, Any] = {"images": images, "annotations": [], "categories": []}
    truth["categories"] = [{"id": 7, "name": "<b>cat"}, {"id": 3, "name": "dog"}]
    found = []
    for number in range(rng.randint(1, 4)):
        mask = {"size": [12, 16], "counts": rng.choice(_RUNS)}
        place = {"image_id": rng.randint(0, 1), "category_id": rng.choice((7, 3)), "bbox": [2, 2, 5, rng.randint(1, 6)]}
        shape = {"segmentation": mask} if rng.random() < 0.5 else {"segmentation": [[2, 2, 7, 2, 7, 7]]}
        truth["annotations"].append({"id": number + 1, "area": 25, "iscrowd": 0, **place, **shape})
        found.append({**place, "score": rng.random(), "segmentation": mask})
    losses = {"lr": 0.02, "loss": 3.0, "loss_cls": 1.0, "time": 0.1, "epoch": 1}
    scalars: list[dict[str, Any]] = [losses | {"iter": step, "step": step} for step in (10, 20)]
    scalars.append({"coco/bbox_mAP": 0.1, "coco/segm_mAP": -1, "time": 0.2, "step": 1})
    context = {"config": "c.py", "model": "MaskRCNN", "seed": 5, "device": "GPU", "versions": {"torch": "2"}}
    train = {"first_iter": 0, "seconds": 3725.0, "ended": "2025", "iter": 40, "max_iters": 40, "epoch": 2}
    paths = {"ann_file": "annotations.json", "img_dir": "images", "results_prefix": "results"}
    evaluation = {
        "checkpoint": "e.pth",
        "num_images": 2,
        "classes": ["<b>cat", "dog"],
        "metrics": {"coco/bbox_mAP": 0.5},
    }
    files = {"run.json": {"train": context | train, "evaluation": context | evaluation | paths}}
    files |= {f"{_RUN}/scalars.json": scalars, f"{_RUN}/config.py": _CONFIG, "results.bbox.json": found}
    files |= {"results.segm.json": found, "annotations.json": truth}
    for name in rng.sample(_NAMES, rng.choice((0, 0, 1, 2))):
        files.pop(name)
    return trees.write(files)


mutate = trees.mutate


def check(data: bytes, folder: Path) -> None:
    """Write the files, and the report."""
    files = trees.parse(data)
    if not isinstance(files, dict):
        return
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    for name in _NAMES:
        if name in files:
            path = work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            text = _text(name, files[name])
            if name == "run.json":
                # Annotations and results are read where the record says that they lie.
                text = text.replace("/etc/passwd", "/nowhere")
            path.write_text(text, encoding="utf-8", errors="replace")
    images = work / "images"
    images.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 12)).save(images / "0.png")
    (images / "1.png").write_bytes(b"no image")
    try:
        if zlib.crc32(data) % 8:
            _Page(_without_curves(work))
            return
        index = write_report(work, max_images=1)
    except (ValueError, FileNotFoundError) as error:
        assert 0 < len(str(error)) < 3000, f"{len(str(error))} characters: {error!s:.100}"
        assert not (work / "report").exists()
        return
    metrics = json.loads(index.with_name("metrics.json").read_text(), parse_constant=_no_constant)
    _RUNS_METRICS.validate(metrics)
    read_headline(index)
    _Page(index.read_text())


def _without_curves(work: Path) -> str:
    """Return the page but for its curves, nine tenths of a report's time."""
    run = read_run(work)
    metrics, gallery = collect_metrics(run), draw_gallery(run, 1)
    _RUNS_METRICS.validate(json.loads(json.dumps(metrics, allow_nan=False)))
    markdown.render_run(metrics, [], gallery, run.kind)
    return page.render_run(run, metrics, [], gallery)


def _text(name: str, content: Any) -> str:
    if isinstance(content, str):
        return content
    if name.endswith("scalars.json") and isinstance(content, list):
        return "".join(f"{json.dumps(line)}\n" for line in content)
    return json.dumps(content)


def _no_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


class _Page(HTMLParser):
    """Checks that tags are closed, and that nothing is fetched or runs but the page's one script."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.scripts = 0
        self.feed(html)
        assert not self.open, f"not closed: {self.open}"
        assert self.scripts == 2, f"{self.scripts} scripts: the data and the one that draws it"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        for name, value in attrs:
            assert not name.startswith("on"), f"{tag} has {name}"
            if name in ("src", "href", "xlink:href", "action", "data"):
                assert re.match(r"data:image/|#[\w-]+$", value or ""), f"{name}={value!r:.100}"
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another"
