"""What COCO evaluation costs: pycocotools and mmdet's CocoMetric beside mmgn's, on 5,000 images of 80 classes.

    python benchmarks/coco_eval.py --out benchmarks/results/coco_eval_cpu.json

The data are synthetic and seeded, as many objects as COCO's val2017 has and some 40 detections an image. Each run is a
process of its own that reads the same file, and the contenders take turns, so that all of them meet the same load.
Times and memory start when the data are in memory:

    pycocotools, mmgn            from annotation and result dicts to the 12 official figures
    CocoMetric, FastCocoMetric   from the arrays a model leaves to the metric's figures

The figures are compared first; contenders that disagree get no time.
"""

import argparse
import contextlib
import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import coco_engines
import numpy as np
import process_memory

from mmgn.compat import environment

WIDTH, HEIGHT = 640, 480
PAIRS = {"mmgn": "pycocotools", "FastCocoMetric": "CocoMetric"}


def synthetic(images: int, classes: int, masks: bool, seed: int = 0) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return annotations and results; about 7.2 objects and 42 detections an image, classes as uneven as COCO's."""
    rng = np.random.default_rng(seed)
    frequency = 1 / np.arange(1, classes + 1)
    frequency /= frequency.sum()
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image_id in range(1, images + 1):
        count = rng.poisson(7.2)
        present = rng.choice(classes, size=max(1, count // 2), p=frequency)
        boxes, labels = _boxes(rng, count), rng.choice(present, size=count)
        # Near objects, closer ones with higher scores and mostly of the right class; and anywhere.
        near = np.repeat(np.arange(count), rng.poisson(3, size=count))
        spread = rng.choice([0.03, 0.1, 0.3], size=len(near))
        moved = boxes[near] + boxes[near][:, [2, 3, 2, 3]] * rng.normal(size=(len(near), 4)) * spread[:, None]
        right = rng.random(len(near)) < 0.85
        anywhere = rng.poisson(20)
        guesses = rng.choice(classes, size=len(near) + anywhere, p=frequency)
        guesses[: len(near)] = np.where(right, labels[near], guesses[: len(near)])
        scores = np.r_[rng.beta(2, 2 + 20 * spread), rng.beta(1, 12, size=anywhere)]
        crowds = rng.random(count) < 0.01
        annotations += [
            {"id": len(annotations) + n, "image_id": image_id, "category_id": int(k) + 1, "iscrowd": int(c)} | shape
            for n, (k, c, shape) in enumerate(zip(labels, crowds, _shapes(boxes, masks), strict=True), 1)
        ]
        found = np.concatenate([moved, _boxes(rng, anywhere)]).astype(np.float32).astype(float)
        results += [
            {"image_id": image_id, "category_id": int(k) + 1, "score": float(np.float32(s))} | shape
            for k, s, shape in zip(guesses, scores, _shapes(found, masks), strict=True)
        ]
    for entry in results:
        del entry["area"]
    return {
        "images": [{"id": i, "file_name": "", "width": WIDTH, "height": HEIGHT} for i in range(1, images + 1)],
        "categories": [{"id": k, "name": f"class {k}"} for k in range(1, classes + 1)],
        "annotations": annotations,
    }, results


def _boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    size = np.exp(rng.normal(4, 1, size=(count, 2))).clip(4, [WIDTH - 8, HEIGHT - 8])
    return np.concatenate([rng.random((count, 2)) * ([WIDTH, HEIGHT] - size), size], axis=1)


def _shapes(boxes: np.ndarray, masks: bool) -> list[dict[str, Any]]:
    boxes[:, 2:] = boxes[:, 2:].clip(2)
    shapes: list[dict[str, Any]] = [{"bbox": box, "area": box[2] * box[3]} for box in boxes.tolist()]
    if masks and shapes:
        from pycocotools import mask

        # Ellipses of 24 corners.
        angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        corners = np.stack([np.cos(angle), np.sin(angle)], axis=-1) / 2 + 0.5
        polygons = boxes[:, None, :2] + corners * boxes[:, None, 2:]
        encoded = mask.frPyObjects(list(polygons.reshape(len(boxes), -1)), HEIGHT, WIDTH)
        for shape, rle, area in zip(shapes, encoded, mask.area(encoded), strict=True):
            shape |= {"segmentation": rle | {"counts": rle["counts"].decode()}, "area": float(area)}
    return shapes


def predictions(truth: dict[str, Any], results: list[dict[str, Any]]) -> list[Any]:
    """Return what a metric has collected, image by image."""
    by_image: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in truth["images"]}
    for entry in results:
        by_image[entry["image_id"]].append(entry)
    pairs = []
    for image_id, own in by_image.items():
        boxes = np.array([entry["bbox"] for entry in own], dtype=np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        scores = np.array([entry["score"] for entry in own], dtype=np.float32)
        labels = np.array([entry["category_id"] - 1 for entry in own], dtype=np.int64)
        prediction: dict[str, Any] = {"img_id": image_id, "bboxes": boxes, "scores": scores, "labels": labels}
        if own and "segmentation" in own[0]:
            prediction["masks"] = [entry["segmentation"] for entry in own]
        pairs.append(({"img_id": image_id, "width": WIDTH, "height": HEIGHT}, prediction))
    return pairs


def evaluate(contender: str, folder: Path, iou_type: str) -> dict[str, Any]:
    """Evaluate once, in this process."""
    truth, results = pickle.loads((folder / "data.pickle").read_bytes())
    if contender in coco_engines.ENGINES:
        if iou_type == "segm":
            for entry in results:
                # With it pycocotools goes by the box's area.
                del entry["bbox"]
        # Imported before the clock starts.
        __import__("pycocotools.cocoeval" if contender == "pycocotools" else "mmgn.evaluation.fast_coco_metric")
        __import__("faster_coco_eval")
        compute = coco_engines.ENGINES[contender]
        arguments: tuple[Any, ...] = (truth, results, iou_type)
    else:
        # mmgn first: it fits mmdet to what is installed.
        import mmgn  # noqa: F401, I001
        from mmdet.registry import METRICS

        metric = METRICS.build({"type": contender, "ann_file": str(folder / "truth.json"), "metric": iou_type})
        metric.dataset_meta = {"classes": [category["name"] for category in truth["categories"]]}
        compute, arguments = metric.compute_metrics, (predictions(truth, results),)
        del truth, results
    before = process_memory.resident_mib("VmRSS")
    process_memory.restart_peak()
    with open(os.devnull, "w") as devnull, contextlib.redirect_stdout(devnull):
        start, cpu_start = time.perf_counter(), time.process_time()
        figures = compute(*arguments)
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    memory = process_memory.resident_mib("VmHWM") - before
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "memory_mb": memory, "figures": figures}


def compare(runs: dict[str, list[dict[str, Any]]]) -> float:
    """Return the largest difference of a figure from the reference's.

    Raises:
        SystemExit: it is one.
    """
    largest = 0.0
    for ours, theirs in PAIRS.items():
        for run, reference in zip(runs[ours], runs[theirs], strict=True):
            own, expected = run["figures"], reference["figures"]
            keys = expected if isinstance(expected, dict) else range(len(expected))
            largest = max(largest, *(abs(own[key] - expected[key]) for key in keys))
    if largest > 1e-9:
        raise SystemExit(f"figures differ by {largest}: no times for wrong figures")
    return largest


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000, help="[5000]")
    parser.add_argument("--classes", type=int, default=80, help="[80]")
    parser.add_argument("--iou-type", choices=["bbox", "segm"], nargs="+", default=["bbox", "segm"], help="[both]")
    parser.add_argument("--runs", type=int, default=3, help="runs of each contender, whose median counts [3]")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        contender, folder, iou_type = args.one
        print(json.dumps(evaluate(contender, Path(folder), iou_type)))
        return
    rows = [row for iou_type in args.iou_type for row in measure(args.images, args.classes, iou_type, args.runs)]
    report = {
        "what": "a COCO evaluation: time, growth of memory; medians over runs in fresh processes that take turns",
        "cpu": environment.cpu_name(),
        "cores": os.cpu_count(),
        "images": args.images,
        "classes": args.classes,
        "runs": args.runs,
        **{name: version(name) for name in ("pycocotools", "faster-coco-eval", "mmdet", "numpy", "mmgn")},
        "rows": rows,
    }
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(report, indent=2) + "\n")


def measure(images: int, classes: int, iou_type: str, runs: int) -> list[dict[str, Any]]:
    """Return a row per pair of contenders."""
    done: dict[str, list[dict[str, Any]]] = {name: [] for pair in PAIRS.items() for name in pair}
    with tempfile.TemporaryDirectory() as folder:
        truth, results = synthetic(images, classes, iou_type == "segm")
        counts = {"objects": len(truth["annotations"]), "detections": len(results)}
        Path(folder, "truth.json").write_text(json.dumps(truth))
        Path(folder, "data.pickle").write_bytes(pickle.dumps((truth, results)))
        del truth, results
        for turn in range(runs):
            for name in sorted(done, reverse=turn % 2 == 1):
                command = [sys.executable, __file__, "--one", name, folder, iou_type]
                output = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
                done[name].append(json.loads(output.splitlines()[-1]))
                print(iou_type, name, round(done[name][-1]["seconds"], 2), "s", flush=True)
    largest = compare(done)
    rows = []
    for ours, theirs in PAIRS.items():
        row: dict[str, Any] = {"iou_type": iou_type, **counts, "ours": ours, "theirs": theirs}
        for key in ("seconds", "cpu_seconds", "memory_mb"):
            own, other = ([run[key] for run in done[name]] for name in (ours, theirs))
            row[f"our_{key}"] = round(statistics.median(own), 2)
            row[f"their_{key}"] = round(statistics.median(other), 2)
            row[f"their_{key}_by_ours"] = round(statistics.median(b / a for a, b in zip(own, other, strict=True)), 2)
        rows.append(row | {"largest_difference_of_a_figure": largest})
        print(rows[-1], flush=True)
    return rows


if __name__ == "__main__":
    main()
