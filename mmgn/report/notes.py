"""What a reader must know to trust the figures: sentences on gaps and contradictions."""

import math
from collections.abc import Mapping
from typing import Any

from mmgn.evaluation import Analysis
from mmgn.report.predictions import SHAPES, Predictions
from mmgn.report.workdir import WorkDir


def training_notes(work: WorkDir) -> list[str]:
    """Return notes on the training log and its record."""
    notes = []
    train = work.record.get("train")
    if not work.train:
        notes.append(f"No training curves: {work.path} has no */vis_data/scalars.json with training lines.")
    if not work.record:
        notes.append(
            "Training time, device, versions and seed are unknown: there is no run.json. Add "
            "custom_hooks = [dict(type='RunRecordHook')] to the configuration to have them recorded."
        )
    if train and not train.get("ended"):
        notes.append(f"Training did not end: the last record is of iteration {train.get('iter')}.")
    if train and train.get("first_iter"):
        notes.append(
            f"Training time counts from iteration {train['first_iter']}, where the run was resumed from a "
            "checkpoint of another work directory."
        )
    if bad := bad_losses(work):
        first = bad[0]["step"]
        notes.append(f"The loss is not finite on {len(bad)} of {len(work.train)} lines, first at iteration {first}.")
    return notes


def bad_losses(work: WorkDir) -> list[dict[str, Any]]:
    """Return the training lines whose loss is no finite number."""
    losses = ((line, line.get("loss", 0.0)) for line in work.train)
    return [line for line, loss in losses if not isinstance(loss, (int, float)) or not math.isfinite(loss)]


def evaluation_notes(work: WorkDir, predictions: Predictions, figures: Mapping[str, Analysis]) -> list[str]:
    """Return notes on the predictions and the figures computed from them."""
    notes = []
    recorded = work.evaluation
    for kind, results in predictions.results.items():
        if not results:
            notes.append(f"{predictions.files[kind]} is empty: nothing was detected, every AP is 0.")
    missing = [kind for kind in SHAPES if kind not in predictions.results]
    notes += [f"No {kind} figures: there are no {kind} results." for kind in missing]
    total = len(predictions.truth["images"])
    if recorded.get("num_images") not in (None, total):
        notes.append(
            f"{recorded['num_images']} images were run, but {predictions.ann_file} has {total}; as in mmdet, "
            "AP counts every object of the others as missed."
        )
    covered = {entry["image_id"] for results in predictions.results.values() for entry in results}
    judged = {category["id"] for category in predictions.categories}
    with_objects = {
        entry["image_id"]
        for entry in predictions.truth["annotations"]
        if entry["category_id"] in judged and not entry["iscrowd"]
    }
    if covered and len(covered & with_objects) < len(with_objects) / 2:
        notes.append(
            f"Only {len(covered & with_objects)} of the {len(with_objects)} images with objects have detections: make "
            f"sure that they were made for {predictions.ann_file}."
        )
    if any(entry["id"] == 0 for entry in predictions.truth["annotations"]):
        notes.append(
            f"An annotation in {predictions.ann_file} has id 0, which pycocotools takes for unmatched: AP is "
            "too low. Number annotations from 1."
        )
    for kind, own in figures.items():
        logged = next((v for k, v in recorded.get("metrics", {}).items() if k.endswith(f"/{kind}_mAP")), None)
        computed = own.stats["mAP"]
        # mmdet logs three decimals.
        if isinstance(logged, (int, float)) and computed is not None and abs(logged - computed) > 0.00051:
            notes.append(
                f"{kind}_mAP computed here is {computed:.4f}, but {logged:.3f} was logged for these: "
                "predictions or annotations have changed since, or other ones were given."
            )
    return notes
