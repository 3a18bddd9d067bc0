"""Finds and checks the COCO results of a run and the annotations they are judged against."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from mmgn.datasets.check.findings import Findings
from mmgn.datasets.check.table import find_entries, is_number
from mmgn.report.workdir import WorkDir

ANNOTATION_KEYS = {
    "images": ("id", "file_name", "width", "height"),
    "annotations": ("id", "image_id", "category_id", "bbox", "area"),
    "categories": ("id", "name"),
}
#: IoU types, and what an entry of results must have to be judged by each.
SHAPES = {"bbox": "bbox", "segm": "segmentation"}


@dataclass
class Predictions:
    """COCO results and their truth, as read from JSON; ids match."""

    ann_file: Path
    img_dir: Path | None
    truth: dict[str, Any]
    #: Those of the recorded classes, as mmdet's CocoMetric chooses; all where none is recorded or known.
    categories: list[dict[str, Any]]
    #: By IoU type, ``bbox`` and ``segm``: the results and the file they came from.
    results: dict[str, list[dict[str, Any]]]
    files: dict[str, Path]


def result_files(results: Path) -> list[Path]:
    """Return the files of COCO results that a prefix, or the path of a single one, stands for; none is no error."""
    files = [Path(f"{results}.{kind}.json") for kind in SHAPES]
    return [file for file in files if os.path.isfile(file)] or ([results] if os.path.isfile(results) else [])


def find_predictions(
    work: WorkDir, ann_file: Path | None, img_dir: Path | None, results: Path | None
) -> Predictions | None:
    """Read the predictions that were named, or else those that run.json or the configuration names.

    What those name need not be on this machine: if nothing was named by the caller, a missing file becomes a note
    in ``work.notes``, and the answer is None.

    Args:
        work: the run.
        ann_file: COCO annotations, over the recorded ones.
        img_dir: folder of the images, over the recorded one.
        results: as :func:`result_files` takes it, over the recorded ones.

    Raises:
        FileNotFoundError: A file is missing, and the caller named some.
        ValueError: A file is damaged, or results and annotations are not of one data set.
    """
    try:
        return _read_predictions(work, ann_file, img_dir, results)
    except FileNotFoundError as error:
        if ann_file or results:
            raise
        work.notes.append(f"{error}.")
        return None


def _read_predictions(work: WorkDir, ann_file: Path | None, img_dir: Path | None, results: Path | None) -> Predictions:
    recorded = work.evaluation
    prefix = results or work.locate(recorded.get("results_prefix"))
    if prefix is None:
        raise FileNotFoundError(f"No predictions found in {work.path}: run `{_test_command(work)}`")
    files = result_files(prefix)
    if not files:
        raise FileNotFoundError(
            f"No predictions found: there is neither {prefix}.bbox.json nor {prefix}.segm.json. Give --results-prefix, "
            f"which is CocoMetric's outfile_prefix, or run `{_test_command(work)}`"
        )
    ann_file = ann_file or work.locate(recorded.get("ann_file"))
    if ann_file is None:
        raise FileNotFoundError(f"No annotations to judge {prefix} by: give --ann-file and --img-dir")
    # False for a name that no file can have; Path.is_file raises.
    if not os.path.isfile(ann_file):
        raise FileNotFoundError(f"No annotation file {ann_file!s:.1000}: give the right one with --ann-file")
    truth = read_annotations(ann_file)
    entries, origin = {}, {}
    for file in files:
        read = _read_json(file, list, "COCO results, a list")
        for kind in _kinds(file, read):
            _check_results(file, read, kind, ann_file, truth)
            entries[kind], origin[kind] = read, file
    named = [entry for entry in truth["categories"] if entry["name"] in (recorded.get("classes") or ())]
    img_dir = img_dir or work.locate(recorded.get("img_dir"))
    return Predictions(ann_file, img_dir, truth, named or truth["categories"], entries, origin)


def _kinds(file: Path, results: Sequence[Any]) -> Sequence[str]:
    """Return the IoU types that a file is for: by its name as CocoMetric gives it, or else by what it holds."""
    for kind in SHAPES:
        if file.name.endswith(f".{kind}.json"):
            return (kind,)
    first = results[0] if results and isinstance(results[0], Mapping) else {}
    return [kind for kind, shape in SHAPES.items() if shape in first] or ["bbox"]


def _test_command(work: WorkDir) -> str:
    config = work.locate(work.record.get("train", {}).get("config")) or "CONFIG"
    checkpoint = work.last_checkpoint or "CHECKPOINT"
    option = f"--cfg-options test_evaluator.outfile_prefix={work.path / 'results'}"
    return f"python tools/test.py {config} {checkpoint} --work-dir {work.path} {option}"


def _read_json(path: Path, kind: type, what: str) -> Any:
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}); write it again") from error
    if not isinstance(content, kind):
        raise ValueError(f"{path} must hold {what}, got a JSON {type(content).__name__}")
    return content


def _check_entries(where: str, entries: list[Any], keys: Sequence[str]) -> None:
    for index, entry in enumerate(entries):
        missing = [key for key in keys if not isinstance(entry, dict) or key not in entry]
        if missing:
            raise ValueError(f"{where}: entry {index} lacks {', '.join(missing)}: {str(entry)[:120]}")


def read_annotations(path: Path) -> dict[str, Any]:
    """Read COCO annotations, and check that they have what figures and pictures are made of.

    Raises:
        ValueError: they have not.
    """
    truth = _read_json(path, dict, "COCO annotations, an object with images, annotations and categories")
    # mmdet leaves "annotations" out of a set without objects.
    truth.setdefault("annotations", [])
    for name, keys in ANNOTATION_KEYS.items():
        if not isinstance(truth.get(name), list):
            raise ValueError(f"{path} has no list {name!r}; it must be a COCO annotation file")
        _check_entries(f"{path}, {name}", truth[name], keys)
    findings = Findings(str(path), limit=1)
    find_entries(truth, findings)
    if findings.errors:
        raise ValueError(f"{path}: {'; '.join(chain.from_iterable(findings.examples.values()))}")
    for name in ("images", "categories"):
        if len({type(entry["id"]) for entry in truth[name]}) > 1:
            raise ValueError(f"{path}: the ids of {name} are numbers and text; COCO's are numbers")
    for annotation in truth["annotations"]:
        annotation.setdefault("iscrowd", 0)
    return truth


def _check_results(path: Path, results: list[Any], kind: str, ann_file: Path, truth: dict[str, Any]) -> None:
    _check_entries(str(path), results, ("image_id", "category_id", "score", SHAPES[kind]))
    for index, entry in enumerate(results):
        # One of NaN is a note, and the other kind of results is judged.
        if not is_number(entry["score"]) or math.isinf(entry["score"]):
            raise ValueError(f"{path}: the score of entry {index} must be finite, got {entry['score']!r:.80}")
    for key, name in (("image_id", "images"), ("category_id", "categories")):
        known = {entry["id"] for entry in truth[name]}
        used = {repr(entry[key]): entry[key] for entry in results}
        unknown = [number for number in used.values() if isinstance(number, (dict, list)) or number not in known]
        if unknown:
            first = ", ".join(f"{number!r:.80}" for number in sorted(unknown, key=lambda n: str(n).zfill(20))[:3])
            raise ValueError(
                f"{path}: {len(unknown)} of its {len(used)} different {key} are not in {ann_file}, which has "
                f"{len(known)} {name} (first unknown: {first}); give the annotation file that these predictions were "
                "made for with --ann-file"
            )
    if kind == "segm":
        _check_mask_sizes(path, results, ann_file, truth)


def _check_mask_sizes(path: Path, results: list[dict[str, Any]], ann_file: Path, truth: dict[str, Any]) -> None:
    sizes = {image["id"]: [image["height"], image["width"]] for image in truth["images"]}
    for index, entry in enumerate(results):
        rle, size = entry["segmentation"], sizes[entry["image_id"]]
        if not isinstance(rle, dict) or rle.get("size") != size or "counts" not in rle:
            raise ValueError(
                f"{path}: the mask of entry {index} must be an RLE of height and width {size}, as {ann_file} has "
                f"image {entry['image_id']!r}, got {str(rle)[:80]}; give the right annotation file with --ann-file"
            )
