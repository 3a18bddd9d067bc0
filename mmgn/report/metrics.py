"""Everything the report says in figures, as one dictionary of plain data: metrics.json."""

import math
from typing import Any

from mmgn.report.coco_figures import FIGURES, CocoFigures
from mmgn.report.predictions import Predictions
from mmgn.report.workdir import WorkDir

IOU_TYPES = ("bbox", "segm")


def collect_metrics(work: WorkDir, predictions: Predictions | None, figures: dict[str, CocoFigures]) -> dict[str, Any]:
    """Collect what is known; what is not is None. COCO figures are fractions of 1, under mmdet's names."""
    train, evaluation = (work.record.get(name, {}) for name in ("train", "evaluation"))
    either = train or evaluation
    metrics: dict[str, Any] = {"model": either.get("model"), "work_dir": str(work.path)}
    for kind in IOU_TYPES:
        stats = figures[kind].stats if kind in figures else dict.fromkeys(FIGURES)
        metrics |= {f"{kind}_{name}": stats[name] for name in FIGURES}
    metrics |= {
        "num_images": len(predictions.truth["images"]) if figures and predictions else None,
        "num_objects": len(predictions.truth["annotations"]) if figures and predictions else None,
        "per_class": _per_class(predictions, figures) if predictions else [],
        "logged_validation": _last_validation(work),
        "logged_evaluation": _scores(evaluation.get("metrics", {})) or None,
        "train_seconds": train.get("seconds"),
        "train_first_iter": train.get("first_iter"),
        "train_complete": bool(train.get("ended")) if train else None,
        # The log has every so many iterations, the record every epoch.
        "iterations": max((work.train[-1]["step"] if work.train else 0), train.get("iter") or 0) or None,
        "max_iterations": train.get("max_iters"),
        "epochs": train.get("epoch") or (work.train[-1].get("epoch") if work.train else None),
        "last_loss": _finite(work.train[-1].get("loss")) if work.train else None,
        "nonfinite_losses": sum(not math.isfinite(line.get("loss", 0.0)) for line in work.train),
        **_memory(work, either),
        "device": either.get("device"),
        "world_size": either.get("world_size"),
        "seed": either.get("seed"),
        "versions": either.get("versions") or {},
        "evaluation_device": evaluation.get("device"),
        "evaluation_ended": evaluation.get("ended"),
        "checkpoint": evaluation.get("checkpoint"),
        "checkpoint_iteration": evaluation.get("iter"),
        "ann_file": str(predictions.ann_file) if predictions else None,
        "img_dir": str(predictions.img_dir) if predictions and predictions.img_dir else None,
        "results": {kind: str(file) for kind, file in predictions.files.items()} if predictions else {},
        "config": either.get("config"),
        "config_text": work.config_text,
        "notes": work.notes,
    }
    return metrics


def _per_class(predictions: Predictions, figures: dict[str, CocoFigures]) -> list[dict[str, Any]]:
    objects: dict[Any, int] = {}
    for annotation in predictions.truth["annotations"]:
        objects[annotation["category_id"]] = objects.get(annotation["category_id"], 0) + 1
    rows = []
    for category in predictions.categories:
        row = {"name": str(category["name"]), "num_objects": objects.get(category["id"], 0)}
        for kind in IOU_TYPES:
            own = figures[kind].per_class[category["id"]] if kind in figures else {}
            row |= {f"{kind}_{name}": own.get(name) for name in ("AP", "AP_50", "AP_75")}
        rows.append(row)
    return rows


def _last_validation(work: WorkDir) -> dict[str, Any] | None:
    if not work.val:
        return None
    line = work.val[-1]
    return {"step": line["step"], "after_iteration": line["after"], **_scores(line)}


def _scores(logged: dict[str, Any]) -> dict[str, float | None]:
    # pycocotools' -1 stands for no figure.
    return {key: None if value == -1 else _finite(value) for key, value in logged.items() if "/" in key}


def _memory(work: WorkDir, section: dict[str, Any]) -> dict[str, Any]:
    if section.get("peak_memory_mb") is not None:
        return {key: section.get(key) for key in ("peak_memory_mb", "peak_memory_kind")}
    # mmengine logs it on CUDA only.
    logged = [line["memory"] for line in work.train if isinstance(line.get("memory"), (int, float))]
    return {
        "peak_memory_mb": max(logged, default=None),
        "peak_memory_kind": "CUDA allocated, from the training log" if logged else None,
    }


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None
