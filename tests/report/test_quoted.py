import json
import re
from pathlib import Path

import pytest

from mmgn.report import quoted
from mmgn.report.setup import Setup, describe, read_config

MMDET = Path(pytest.importorskip("mmdet").__file__).parent / ".mim" / "configs"
ROWS = json.loads(Path(quoted.__file__).with_name("quoted.json").read_text())
COCO = {"images": [None] * 5000, "categories": [None] * 80}
VAL = Path("annotations/instances_val2017.json")
# Of this repository's configs, which rows of the paper's they are to be held against (box AP and mask AP).
OURS = {
    "mask_rcnn/mask-rcnn_r50-c4_bn-frozen_2x_coco.py": {(37.7, 32.8)},
    "mask_rcnn/mask-rcnn_r50-c4_fusedgn-all_2x_coco.py": {(38.8, 33.6)},
    "mask_rcnn/mask-rcnn_r50_fpn_bn-frozen_2x_coco.py": {(38.6, 34.2)},
    "mask_rcnn/mask-rcnn_r50_fpn_bn-frozen_fusedgn-box-head_2x_coco.py": {(39.5, 34.4)},
    "mask_rcnn/mask-rcnn_r50_fpn_fusedgn-backbone-box-head_2x_coco.py": {(40.0, 34.8)},
    "mask_rcnn/mask-rcnn_r50_fpn_fusedgn-all_2x_coco.py": {(40.3, 35.7), (40.2, 36.4)},
    "mask_rcnn/mask-rcnn_r50_fpn_fusedgn-all_3x_coco.py": {(40.8, 36.1), (40.5, 36.7)},
    "mask_rcnn/mask-rcnn_r50_fpn_bn-frozen-2fc_2x_coco.py": {(38.6, 34.5)},
    "mask_rcnn/mask-rcnn_r101_fpn_fusedgn-all_2x_coco.py": {(41.8, 36.8), (41.9, 37.6)},
    "mask_rcnn/mask-rcnn_r50_fpn_bn-mmdet_2x_coco.py": set(),
    "scratch/mask-rcnn_r50-scratch_fpn_fusedgn-all_3x_coco.py": {(39.5, 35.2)},
    "scratch/mask-rcnn_r50-scratch_fpn_syncbn-all_3x_coco.py": {(34.5, None)},
    "scratch/mask-rcnn_r50-scratch_fpn_fusedgn-all_6x_coco.py": {(41.2, 37.4)},
    "gn_ws/mask-rcnn_r50_fpn_fusedgn-ws-all_20-23-24e_coco.py": {(41.1, 37.1)},
    "ablations/mask-rcnn_r50-scratch_fpn_fusedgn-16g_3x_coco.py": set(),
    "ablations/mask-rcnn_r50-scratch_fpn_fusedgn-16cpg_3x_coco.py": set(),
    "ablations/mask-rcnn_r50_fpn_fusedgn-all_rpn_2x_coco.py": set(),
    "ablations/mask-rcnn_r50_fpn_bn-trained_2x_coco.py": set(),
    "digits/mask-rcnn_r18-mini_fpn_fusedgn-all_digits.py": set(),
}


def setup_of(name):
    from mmgn.engine.config import load_config

    return describe(read_config(load_config(name).pretty_text))


def figures(rows):
    return {tuple(r.get(key) and round(100 * r[key], 1) for key in ("bbox_mAP", "segm_mAP")) for r in rows}


@pytest.mark.parametrize("name", OURS)
def test_configs_here_meet_the_rows_that_they_follow(name):
    assert figures(quoted.matching(setup_of(name), COCO, VAL)) == OURS[name]


@pytest.mark.parametrize("row", [r for r in ROWS if r["source"].startswith("mmdet")], ids=lambda r: r["source"])
def test_rows_of_mmdet_say_what_its_files_say(row):
    import yaml

    name = re.search(r"configs/(.*\.py)", row["source"])[1]
    models = yaml.safe_load((MMDET / name).with_name("metafile.yml").read_text())["Models"]
    (model,) = (m for m in models if m["Config"].replace("%2B", "+") == f"configs/{name}")
    published = {key: value for task in model["Results"] for key, value in task["Metrics"].items()}
    assert (row["bbox_mAP"], row["segm_mAP"]) == (published["box AP"], published["mask AP"])
    assert row.get("memory_gb") == model["Metadata"].get("Training Memory (GB)")
    times = model["Metadata"].get("inference time (ms/im)")
    assert row.get("ms_per_image") == (times and times[0]["value"])
    # And that config is what the row is found by.
    found = quoted.matching(setup_of(f"mmdet::{name}"), COCO, VAL)
    assert row["source"] in {entry["source"] for entry in found}


def test_what_the_paper_does_not_tell_is_not_shown():
    """Table 7 has its SyncBN figure from another work, without heads and schedule."""
    (row,) = quoted.matching(setup_of("scratch/mask-rcnn_r50-scratch_fpn_syncbn-all_3x_coco.py"), COCO, VAL)
    told = {key: value for key, value in row["setup"].items() if value is not None}
    assert told == {"backbone": "R-50", "norms": {"backbone": "SyncBN"}, "norm": "SyncBN", "pretrained": False}
    assert "of a concurrent work" in row["source"]


def test_no_row_but_on_the_published_images():
    setup = Setup(**(ROWS[0]["match"] | {"milestones": (16, 22)}))
    assert quoted.matching(setup, COCO, VAL)
    assert not quoted.matching(setup, COCO, Path("val.json"))
    assert not quoted.matching(setup, COCO | {"images": [None] * 4999}, VAL)
    assert not quoted.matching(Setup(), COCO, VAL)
