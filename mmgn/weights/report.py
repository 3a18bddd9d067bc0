"""What a conversion tells: what became of each key, and what else a person has to know to use the weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from mmgn.weights.layouts import LAYOUTS

STATISTICS = "statistics of batch norm"


@dataclass
class Report:
    """What became of each key.

    Attributes:
        source: name of the layout that the weights had.
        target: name of the layout that they have now.
        detector: whether it is a whole detector, not a backbone.
        depth: such as 'ResNet-50'.
        matched: the source's keys and the target's.
        dropped: why, and the source's keys that are no weights.
        unmatched: the source's keys that no rule knows, or that have no place in the target.
        mismatched: mmdet's keys that are left out, with the weights' shape and the model's.
        missing: the model's keys that the weights do not have.
        unexpected: mmdet's keys that the model does not have.
        notes: what else a person has to know to use them.
    """

    source: str
    target: str
    detector: bool
    depth: str
    matched: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, list[str]] = field(default_factory=dict)
    unmatched: list[str] = field(default_factory=list)
    mismatched: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def warm_start(self) -> bool:
        """Whether gamma and beta come from batch norm: a start for training, not the model that was trained."""
        return STATISTICS in self.dropped

    def __str__(self) -> str:
        what = "detector" if self.detector else "backbone"
        lines = [f"{self.source} -> {self.target}: {what}, {self.depth}", f"matched: {len(self.matched)}"]
        lines += [f"left out: {len(keys)}, {why}" for why, keys in self.dropped.items()]
        lines += _listed("unmatched, left out", self.unmatched)
        shapes = [f"{key}: {have}, the model's {want}" for key, (have, want) in self.mismatched.items()]
        lines += _listed("of another shape, left out", shapes)
        lines += _listed("in the model, not in the weights", self.missing)
        lines += _listed("in the weights, not in the model", self.unexpected)
        return "\n".join(lines + [f"note: {note}" for note in self.notes])


def notes(state: Mapping[str, Any], report: Report) -> list[str]:
    """Return what is not in the names: a warm start, the input, the conventions of the code bases.

    Args:
        state: the weights as they were read.
        report: with its keys accounted for.
    """
    source, target = LAYOUTS[report.source], LAYOUTS[report.target]
    told = []
    if report.warm_start:
        told.append(
            "A WARM START, not trained group norm: gamma and beta are those of batch norm, whose running means and "
            "variances are dropped, so the outputs are not those of the model that was trained. Train from here."
        )
    elif report.source == "detectron2":
        told.append("taken for group norm; batch norm with its statistics folded in (FrozenBN) would look the same.")
    given = source.detector_input if report.detector else source.backbone_input
    pixels = [state.get(name) for name in ("pixel_mean", "pixel_std")]
    if all(isinstance(values, Tensor) for values in pixels):
        mean, std = ([round(float(value), 4) for value in values.flatten()] for values in pixels if values is not None)
        given = f"mean={mean}, std={std}, bgr_to_rgb=False (True if INPUT.FORMAT was 'RGB')"
    if report.target == "mmdet" and given:
        told.append(f"the input these weights expect, unless trained otherwise: data_preprocessor=dict({given})")
        if report.source == "detectron2" and report.warm_start:
            told.append("style='caffe' where its config has STRIDE_IN_1X1, as MSRA's models do; otherwise 'pytorch'.")
        else:
            groups = (
                "" if report.warm_start else "; num_groups is in no checkpoint, and 32 in all published ones with GN"
            )
            told.append(f"style='pytorch', with the stride in the 3x3 convolutions{groups}.")
    elif report.target != report.source:
        default = target.detector_input if report.detector else target.backbone_input
        told.append(
            "conv1 is unchanged, so the input must stay what it was trained with, not what is usual there"
            f"{f' ({default})' if default else ''}: {given or 'as its config says'}."
        )
    if report.detector and report.source == "detectron" != report.target:
        told.append(
            "background's scores are moved from first to last, its boxes and masks dropped. Detectron adds 1 to widths "
            "and heights, rounds anchors and does not shift RoIs by half a pixel; mmdet's nearest is in its "
            "configs/legacy_1.x: LegacyAnchorGenerator, LegacyDeltaXYWHBBoxCoder, RoIAlign with aligned=False."
        )
    if report.detector and report.target == "detectron" != report.source:
        told.append("background's scores are moved from last to first; its boxes and masks, unknown here, are zeros.")
    return told


def _listed(title: str, items: Sequence[str]) -> list[str]:
    return [f"{title}: {len(items)}", *(f"  {item}" for item in items)] if items else []
