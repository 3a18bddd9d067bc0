"""Published results, each with its source, for the runs that they can be held against."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from mmgn.report.setup import Setup

#: The only images that the published figures are of.
COCO_FILE = "instances_val2017.json"
COCO_IMAGES, COCO_CLASSES = 5000, 80


def matching(setup: Setup, truth: Mapping[str, Any], ann_file: Path) -> list[dict[str, Any]]:
    """Return the published rows of a run's detector, backbone, norms and schedule; none on other data.

    Each has its ``source`` and ``setup``, APs as fractions of 1 under the names of the measured ones, and where
    published ``memory_gb`` and ``ms_per_image``. FusedGN is held against GN: it computes the same.
    """
    size = (len(truth["images"]), len(truth["categories"]))
    if ann_file.name != COCO_FILE or size != (COCO_IMAGES, COCO_CLASSES):
        return []
    return [row for row, match in _rows() if _agrees(setup, match)]


@cache
def _rows() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    rows = []
    for entry in json.loads(Path(__file__).with_name("quoted.json").read_text(encoding="utf-8")):
        match = entry.pop("match")
        # What the source itself tells, where that is less than what the row is found by.
        setup = entry.pop("setup", match)
        figures = {key: value / 100 if "_mAP" in key else value for key, value in entry.items() if key != "source"}
        rows.append(({"source": entry["source"], "setup": Setup(**setup).as_dict(), **figures}, match))
    return rows


def _agrees(setup: Setup, match: Mapping[str, Any]) -> bool:
    norms = {part: kind.replace("FusedGN", "GN") for part, kind in (setup.norms or {}).items()}
    own = setup.as_dict() | {"norms": norms, "milestones": list(setup.milestones or ())}
    return all(own[key] == value for key, value in match.items())
