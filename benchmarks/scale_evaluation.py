"""What evaluation costs as the number of images grows: pycocotools, what mmgn uses, and bringing results to rank 0.

    python benchmarks/scale_evaluation.py --out benchmarks/results/scale_evaluation.json

Synthetic truth of COCO's density (7.3 objects an image, 80 classes) and 40 detections an image, half of them objects
moved a little, boxes alone; each figure from a process of its own, which starts with annotations and results in memory,
as they are after inference. Collecting runs mmengine's collect_results between two processes, on what CocoMetric keeps
of an image: 100 detections with masks. Memory is the peak of the resident set beyond the start's.
"""

import argparse
import json
import pickle
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import coco_engines
import numpy as np
import process_memory
import synthetic_coco

import mmgn
from mmgn.compat import environment

IMAGES = (1_000, 5_000, 20_000)
DETECTIONS = 40
#: Of mmdet's test_cfg: the most detections of an image.
MAX_PER_IMAGE = 100
_COLLECTED = 200


def detections(truth: dict[str, Any], seed: int = 0) -> list[dict[str, Any]]:
    """Return ``DETECTIONS`` boxes an image: moved objects where there are enough, and boxes drawn anywhere."""
    rng = np.random.default_rng(seed)
    by_image: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in truth["images"]}
    for annotation in truth["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    results = []
    for image_id, objects in by_image.items():
        found = (objects * 2)[: DETECTIONS // 2]
        drawn = np.exp(rng.uniform(np.log(8), np.log(400), (DETECTIONS, 4)))
        boxes = np.concatenate([np.array([o["bbox"] for o in found]).reshape(-1, 4), drawn])[:DETECTIONS]
        boxes *= rng.normal(1, 0.05, boxes.shape)
        labels = rng.integers(1, synthetic_coco.CATEGORIES + 1, DETECTIONS)
        labels[: len(found)] = [o["category_id"] for o in found]
        scores = rng.beta(1, 3, DETECTIONS)
        scores[: len(found)] = rng.beta(3, 1.5, len(found))
        results += [
            {"image_id": image_id, "category_id": label, "bbox": box, "score": score}
            for box, label, score in zip(boxes.tolist(), labels.tolist(), scores.tolist(), strict=True)
        ]
    return results


def measure(engine: str, file: Path) -> dict[str, float]:
    """Evaluate detections for the annotation file, in this process."""
    truth = json.loads(file.read_text())
    results = detections(truth)
    process_memory.restart_peak()
    before = process_memory.resident_mib("VmRSS")
    wall, cpu = time.perf_counter(), time.process_time()
    value = coco_engines.ENGINES[engine](truth, results, "bbox")[0]
    seconds = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    return seconds | {"peak_mib": process_memory.resident_mib("VmHWM") - before, "mAP": value}


def collect(rank: int, port: int, images: int) -> None:
    """Collect the results of ``images`` images from two processes, and print what it took on rank 0."""
    import torch.distributed as dist
    from mmengine.dist import collect_results

    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    with tempfile.TemporaryDirectory() as folder:
        shared = [folder]
        dist.broadcast_object_list(shared)
        part = [kept_of_image(seed) for seed in range(rank, images, 2)]
        start = time.process_time()
        # Removed by rank 0 once it has read both parts.
        whole = collect_results(part, images, "cpu", tmpdir=str(Path(shared[0], "parts")))
        spent = time.process_time() - start
        dist.barrier()
    if rank == 0:
        assert whole is not None and len(whole) == images
        # As collect_results writes them.
        size = len(pickle.dumps(part, protocol=2)) / len(part)
        print(json.dumps({"bytes_per_image": size, "rank0_cpu_ms_per_image": 1e3 * spent / images}))


def kept_of_image(seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what mmdet's CocoMetric keeps of an image: two dicts, of truth and of 100 detections with their masks."""
    import pycocotools.mask

    rng = np.random.default_rng(seed)
    width, height = synthetic_coco.WIDTH, synthetic_coco.HEIGHT
    sizes = np.exp(rng.uniform(np.log(8), np.log([width, height]), (MAX_PER_IMAGE, 2)))
    boxes = np.hstack([rng.uniform(0, [width, height] - sizes), sizes])
    # Outlines with waves, as masks that a network predicts have.
    turn = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    waves = 0.85 + 0.1 * np.sin(rng.integers(3, 9, (MAX_PER_IMAGE, 1)) * turn)
    unit = np.stack([waves * np.cos(turn), waves * np.sin(turn)], 2)
    outlines = boxes[:, None, :2] + boxes[:, None, 2:] * (1 + unit) / 2
    masks = pycocotools.mask.frPyObjects(outlines.reshape(MAX_PER_IMAGE, -1).tolist(), height, width)
    scores = rng.uniform(0.05, 1, MAX_PER_IMAGE).astype(np.float32)
    prediction = {
        "img_id": seed,
        "bboxes": np.hstack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]]).astype(np.float32),
        "scores": scores,
        "labels": rng.integers(0, synthetic_coco.CATEGORIES, MAX_PER_IMAGE),
        "masks": masks,
        "mask_scores": scores,
    }
    return {"width": width, "height": height, "img_id": seed}, prediction


def _run(*arguments: Any) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, __file__, *map(str, arguments)], stdout=subprocess.PIPE, text=True)


def _answer(process: subprocess.Popen[str]) -> dict[str, float]:
    output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{process.args} ended with {process.returncode}")
    answer: dict[str, float] = json.loads(output.splitlines()[-1])
    return answer


def _medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {key: round(statistics.median(run[key] for run in runs), 6 if key == "mAP" else 2) for key in runs[0]}


def measure_collecting(repeats: int) -> dict[str, Any]:
    """Return the medians of :func:`collect` over two processes."""
    runs = []
    for _ in range(repeats):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        ranks = [_run("--collect", rank, port, _COLLECTED) for rank in range(2)]
        runs.append(_answer(ranks[0]))
        ranks[1].communicate()
    return {"detections_per_image": MAX_PER_IMAGE, "images": _COLLECTED, "runs": repeats, **_medians(runs)}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", nargs="+", type=int, default=IMAGES, help=f"numbers of images {IMAGES}")
    parser.add_argument(
        "--engines",
        nargs="+",
        choices=coco_engines.ENGINES,
        default=list(coco_engines.ENGINES),
        help="what evaluates [both]",
    )
    parser.add_argument("--repeats", type=int, default=3, help="processes per figure; from 20,000 images on one [3]")
    parser.add_argument("--memory-gib", type=float, default=12, help="address space of a process, at most [12]")
    parser.add_argument("--scratch", type=Path, help="where annotation files are made [a temporary folder]")
    parser.add_argument("--out", type=Path, help="JSON file to write; rows not asked for are kept")
    parser.add_argument("--judge", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--collect", nargs=3, type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.judge:
        print(json.dumps(measure(args.judge[0], Path(args.judge[1]))))
        return
    if args.collect:
        collect(*args.collect)
        return
    limit = int(args.memory_gib * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    report = json.loads(args.out.read_text()) if args.out and args.out.exists() else {"rows": []}
    rows = {(row["engine"], row["images"]): row for row in report["rows"]}
    with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
        for images in args.images:
            file = Path(folder, f"{images}.json")
            objects = round(images * synthetic_coco.COCO_OBJECTS / synthetic_coco.COCO_IMAGES)
            synthetic_coco.write(file, images, objects)
            for engine in args.engines:
                runs = 1 if images >= 20_000 else args.repeats
                figures = _medians([_answer(_run("--judge", engine, file)) for _ in range(runs)])
                rows[engine, images] = {"engine": engine, "images": images, "runs": runs, **figures}
                print(rows[engine, images], flush=True)
                write(args.out, report | {"rows": [rows[key] for key in sorted(rows)]})
            file.unlink()
    report |= {"rows": [rows[key] for key in sorted(rows)], "collecting": measure_collecting(args.repeats)}
    print(report["collecting"])
    write(args.out, report)


def write(path: Path | None, report: dict[str, Any]) -> None:
    """Write the report, if there is a path."""
    what = {
        "what": "COCO box evaluation: CPU seconds and peak MiB; collecting results with masks from two ranks; measured",
        "cpu": environment.collect()["system"]["cpu"],
        "mmgn": mmgn.__version__,
        "detections_per_image": DETECTIONS,
    }
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(what | {k: v for k, v in report.items() if k not in what}, indent=2) + "\n")


if __name__ == "__main__":
    main()
