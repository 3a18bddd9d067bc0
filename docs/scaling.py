"""Write the tables of docs/scaling.md anew from benchmarks/results/scale_*.json: python docs/scaling.py."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tables import fill, table

PAGE = Path(__file__).with_name("scaling.md")
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
RANKS = 8
#: Images per second that a GPU takes.
RATES = (5, 10, 20, 40)
_FILES = {
    "coco": "COCO, polygons",
    "coco_boxes": "COCO, boxes",
    "coco_boxes_x5": "5 x COCO, boxes",
    "coco_boxes_x10": "10 x COCO, boxes",
}


def annotations(report: dict[str, Any]) -> str:
    """Loading, per rank; what the ranks of a machine keep is computed from it."""
    by_kind = {(row["file"], row["dataset"]): row for row in report["rows"]}
    rows = []
    for row in report["rows"]:
        kept = RANKS * row["rank_uss_mib"]
        if row["dataset"].startswith("Shared"):
            # One rank parses, if any; the items are there once.
            others = by_kind.get((row["file"], "SharedCocoDataset, later start"), row)
            kept = row["rank_uss_mib"] + (RANKS - 1) * others["rank_uss_mib"] + row["items_mib"]
        figures = [row["peak_mib"], row["rank_uss_mib"], kept, row["worker_uss_mib"], row["item_us"]]
        file = f"{_FILES[row['file']]}, {row['file_mib']:.0f} MiB"
        rounded = [f"{figure:.0f}" for figure in figures]
        rows.append([file, row["dataset"], f"{row['cpu_seconds']:.1f}", *rounded, row["runs"]])
    head = ["File", "Data set", "Load, CPU s", "Peak, MiB", "A rank keeps, MiB", f"{RANKS} ranks keep, MiB (computed)"]
    return table([*head, "A worker's own, MiB", "Reading an item, µs", "Runs"], rows)


def evaluation(report: dict[str, Any]) -> str:
    """Evaluation by number of images."""
    rows = [
        [
            _count(row["images"]),
            row["engine"],
            f"{row['cpu_seconds']:.1f}",
            f"{row['peak_mib']:.0f}",
            f"{row['mAP']:.6f}",
            row["runs"],
        ]
        for row in sorted(report["rows"], key=lambda row: (row["images"], row["engine"] == "mmgn"))
    ]
    return table(["Images", "Engine", "CPU s", "Peak, MiB", "mAP", "Runs"], rows)


def collecting(report: dict[str, Any]) -> str:
    """What rank 0 collects; the sizes are computed from the bytes of an image."""
    found = report["collecting"]
    kilobytes = found["bytes_per_image"] / 1e3
    rows = [
        [_count(images), f"{images * kilobytes / 1e6:.2f}", f"{images * found['rank0_cpu_ms_per_image'] / 1e3:.1f}"]
        for images in (5_000, 20_000, 118_287)
    ]
    said = f"Measured: {kilobytes:.1f} kB and {found['rank0_cpu_ms_per_image']:.2f} ms of rank 0's CPU an image."
    return said + "\n\n" + table(["Images", "Files, GB (computed)", "Rank 0, CPU s (computed)"], rows)


def sent(report: dict[str, Any]) -> str:
    """Bytes per iteration, counted."""
    rows = [
        [
            f"[{model['model']}](../configs/{model['config']})",
            f"{model['trained']:,}",
            f"{model['gradient_bytes'] / 1e6:.1f}",
            len(model["bucket_bytes"]),
            0,
            2 * model["norms"],
            f"{sum(model['gather_bytes'] + model['reduce_bytes']) / 1e6:.2f}",
        ]
        for model in report["models"]
    ]
    head = ["Model", "Trained parameters", "Gradients, MB", "DDP's buckets", "Sent by group norm, MB"]
    return table([*head, "SyncBN's collectives", "Their MB"], rows)


def communication(report: dict[str, Any]) -> str:
    """Times per iteration, modelled."""
    models = ["R50", "R101"]
    times = {(row["interconnect"], row["machines"], row["model"]): row for row in report["rows"]}
    rows = []
    for link, machines in dict.fromkeys((row["interconnect"], row["machines"]) for row in report["rows"]):
        of_models = [times[link, machines, model] for model in models]
        figures = [f"{row[key]:.1f}" for row in of_models for key in ("gradients_ms", "syncbn_ms")]
        rows.append([link, f"{machines} x 8", *figures])
    head = [f"{model}: {what}, ms" for model in models for what in ("gradients", "SyncBN adds")]
    return table(["Interconnect (nominal)", "GPUs", *head], rows)


def loader(report: dict[str, Any]) -> str:
    """CPU time of an image, measured."""
    steps = list(report["rows"][0]["steps"])
    rows = [
        [
            row["masks"],
            f"{row['worker_ms']:.1f}",
            f"{row['images_per_second_per_core']:.0f}",
            f"{row['training_process_ms']:.1f}",
            *(f"{row['steps'][step]:.1f}" for step in steps),
            f"{row['mask_targets_ms']:.1f}" if "mask_targets_ms" in row else "on the GPU",
        ]
        for row in report["rows"]
    ]
    head = ["Masks", "Worker, ms an image", "Images/s per core", "Training process, ms an image"]
    return table([*head, *(step.removesuffix("_ms") for step in steps), "Mask targets, ms an image"], rows)


def cores(report: dict[str, Any]) -> str:
    """Cores per GPU, computed from the worker's time."""
    rows = []
    for rate in RATES:
        by_masks = [(rate * row["worker_ms"] / 1e3, rate * row["training_process_ms"] / 1e3) for row in report["rows"]]
        rows.append([rate, *(f"{workers:.2f} + {main:.2f}" for workers, main in by_masks)])
    return table(
        ["Images/s of a GPU", *(f"{row['masks']}: workers + training process" for row in report["rows"])], rows
    )


#: Table: the file it comes from, and what makes it.
TABLES: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "annotations": ("scale_annotations", annotations),
    "evaluation": ("scale_evaluation", evaluation),
    "collecting": ("scale_evaluation", collecting),
    "sent": ("scale_communication", sent),
    "communication": ("scale_communication", communication),
    "loader": ("scale_loader", loader),
    "cores": ("scale_loader", cores),
}


def render(page: str) -> str:
    """Return the page with every table as the results have it now."""
    made = {name: make(json.loads((RESULTS / f"{file}.json").read_text())) for name, (file, make) in TABLES.items()}
    return fill(PAGE, page, made)


def _count(number: int) -> str:
    return f"{number:,}"


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text()))
