"""Everything the report says in figures, as one dictionary of plain data: metrics.json."""

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from mmgn.evaluation import FIGURES, SCORE_THRESHOLD, Analysis
from mmgn.report import quoted
from mmgn.report.notes import bad_losses
from mmgn.report.predictions import SHAPES, Predictions
from mmgn.report.run import Run
from mmgn.report.setup import describe
from mmgn.report.workdir import WorkDir

#: Of what schema.json describes; grows when a key changes its meaning or goes, not when one is added.
SCHEMA_VERSION = 1
IOU_TYPES = tuple(SHAPES)
CLASS_FIGURES = ("AP", "AP_50", "AP_75", "AP_s", "AP_m", "AP_l", "AR_100")
HARDEST = 20


def collect_metrics(run: Run) -> dict[str, Any]:
    """Collect what is known; what is not is None. COCO figures are fractions of 1, under mmdet's names."""
    work, predictions, analyses = run.work, run.predictions, run.analyses
    train, evaluation = work.record.get("train", {}), work.evaluation
    either = train or evaluation
    setup = describe(work.config)
    judged = predictions if analyses else None
    per_class = _per_class(judged, analyses) if judged else []
    metrics: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "kind": "run",
        "name": run.name,
        "work_dir": str(work.path),
        "model": either.get("model") or setup.detector,
        "setup": setup.as_dict(),
    }
    for kind in IOU_TYPES:
        stats = analyses[kind].stats if kind in analyses else dict.fromkeys(FIGURES)
        metrics |= {f"{kind}_{name}": stats[name] for name in FIGURES}
    metrics |= {
        "num_images": len(judged.truth["images"]) if judged else None,
        "num_objects": sum(row["num_objects"] for row in per_class) if judged else None,
        "per_class": per_class,
        "errors": {kind: _errors(analysis) for kind, analysis in analyses.items()},
        "hardest_images": _hardest(run),
        "quoted": quoted.matching(setup, judged.truth, judged.ann_file) if judged else [],
        "logged_validation": _last_validation(work),
        "logged_evaluation": _scores(evaluation.get("metrics", {})) or None,
        "train_seconds": train.get("seconds"),
        "train_first_iter": train.get("first_iter"),
        "train_complete": bool(train.get("ended")) if train else None,
        # The log has every so many iterations, the record every epoch.
        "iterations": max((work.train[-1]["step"] if work.train else 0), train.get("iter") or 0) or None,
        "max_iterations": train.get("max_iters"),
        "epochs": train.get("epoch") or (_whole(work.train[-1].get("epoch")) if work.train else None),
        "last_loss": _finite(work.train[-1].get("loss")) if work.train else None,
        "nonfinite_losses": len(bad_losses(work)),
        "seconds_per_iteration": _typical(work.train, "time"),
        **_speed(work),
        **_memory(work, either),
        "device": either.get("device"),
        "world_size": either.get("world_size"),
        "seed": either.get("seed"),
        "versions": either.get("versions") or {},
        "norms": train.get("norms"),
        "train_command": train.get("command"),
        "evaluation_command": evaluation.get("command"),
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


def _per_class(predictions: Predictions, analyses: Mapping[str, Analysis]) -> list[dict[str, Any]]:
    # The same for boxes and masks.
    matches = next(iter(analyses.values())).matches
    objects = dict(zip(matches.cat_ids, matches.objects_of.tolist(), strict=True))
    rows = []
    for category in predictions.categories:
        cat_id = category["id"]
        row = {"id": cat_id, "name": str(category["name"]), "num_objects": objects[cat_id]}
        for kind in IOU_TYPES:
            own = analyses[kind].per_class[cat_id] if kind in analyses else {}
            row |= {f"{kind}_{name}": own.get(name) for name in CLASS_FIGURES}
            curve = analyses[kind].curves.get(cat_id) if kind in analyses else None
            row |= {f"{kind}_best_f1": curve and curve.best_f1, f"{kind}_best_score": curve and curve.best_score}
        rows.append(row)
    return rows


def _errors(analysis: Analysis) -> dict[str, Any]:
    confusion, calibration = analysis.confusion, analysis.calibration
    return {
        "tide": {name: float(value) for name, value in analysis.tide.items()},
        "confusion": {
            "score_threshold": confusion.score_thr,
            "iou_threshold": confusion.iou_thr,
            "category_ids": list(confusion.cat_ids),
            "matrix": [[int(count) for count in row] for row in confusion.matrix],
        },
        "calibration": {
            "expected_error": calibration.ece,
            "bins": [
                {"score": _finite(score), "precision": _finite(precision), "count": int(count)}
                for score, precision, count in zip(
                    calibration.mean_score, calibration.precision, calibration.count, strict=True
                )
            ],
        },
    }


def _hardest(run: Run) -> dict[str, Any] | None:
    if run.kind is None or run.predictions is None:
        return None
    names = {image["id"]: str(image["file_name"]) for image in run.predictions.truth["images"]}
    images = [
        {
            "image_id": own.image_id,
            "file_name": names[own.image_id],
            **{key: getattr(own, key) for key in ("found", "false", "missed", "f1")},
        }
        for own in run.ranked[:HARDEST]
    ]
    return {"iou_type": run.kind, "score_threshold": SCORE_THRESHOLD, "images": images}


def _last_validation(work: WorkDir) -> dict[str, Any] | None:
    if not work.val:
        return None
    line = work.val[-1]
    return {"step": line["step"], "after_iteration": line["after"], **_scores(line)}


def _scores(logged: Mapping[str, Any]) -> dict[str, float | None]:
    # pycocotools' -1 stands for no figure.
    return {key: None if value == -1 else _finite(value) for key, value in logged.items() if "/" in key}


def _memory(work: WorkDir, section: Mapping[str, Any]) -> dict[str, Any]:
    if section.get("peak_memory_mb") is not None:
        return {key: section.get(key) for key in ("peak_memory_mb", "peak_memory_kind")}
    # mmengine logs it on CUDA only.
    logged = [memory for line in work.train if (memory := _finite(line.get("memory"))) is not None]
    return {
        "peak_memory_mb": max(logged, default=None),
        "peak_memory_kind": "CUDA allocated, from the training log" if logged else None,
    }


def _speed(work: WorkDir) -> dict[str, Any]:
    """Return the time of an image as SpeedHook measured it, or else that of the validation loop from the log."""
    measured = work.evaluation.get("ms_per_image")
    if measured is not None:
        how = work.evaluation.get("speed") or {}
        return {"ms_per_image": measured, "ms_per_image_kind": how.get("includes", "model")}
    batch = (work.config.get("val_dataloader") or {}).get("batch_size")
    seconds = _typical(work.val, "time")
    if seconds is None or not isinstance(batch, int) or batch < 1:
        return {"ms_per_image": None, "ms_per_image_kind": None}
    return {"ms_per_image": 1000 * seconds / batch, "ms_per_image_kind": "validation loop, from the log"}


def _typical(lines: Sequence[Mapping[str, Any]], key: str) -> float | None:
    values = [value for line in lines if (value := _finite(line.get(key))) is not None]
    return median(values) if values else None


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _whole(value: Any) -> int | None:
    return value if type(value) is int else None
