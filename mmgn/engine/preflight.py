"""The checks of a training before it costs anything: data, classes, model, disk, norms."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import nn

from mmgn.datasets.check import Findings, check_quickly
from mmgn.engine.checkpoint_room import check_room
from mmgn.engine.data import datasets, find_ann_file, find_classes, find_img_dir, metrics
from mmgn.engine.model import build_model
from mmgn.engine.norm_table import norm_table

#: Bytes of the largest annotation file that is read: twice COCO's, which takes some 7 s.
LARGEST = 2**30
_WAY_OUT = "tools/check_dataset.py tells more; --skip-preflight trains all the same."


def preflight(cfg: Config, norms: bool = True) -> str:
    """Check what a training needs before it begins, in seconds: some 9 for COCO, most of them JSON.

    Annotation files are read without their polygons, and of the images the headers of a few; ``tools/check_dataset.py``
    looks at all. Data sets that do not read COCO's format, and what is not on a local disk, are left to mmdet.

    Args:
        cfg: the config, of which paths are known to be there (:func:`mmgn.engine.data.check_data`).
        norms: whether to tell the norm table.

    Returns:
        What was found, with warnings, which do not stop a run.

    Raises:
        ValueError: what would break the training or corrupt AP: the data, classes that do not fit them or the model,
            too little room for the checkpoints.
    """
    facts: list[str] = []
    warnings: list[str] = []
    # Where they are given first.
    classes: dict[tuple[str, ...], str] = {}
    for split in ("train", "val"):
        for where, names, fact, remarks in _check_sets(cfg, split):
            classes.setdefault(names, where)
            facts.append(fact)
            warnings += remarks
    _check_same(classes)
    warnings += _check_metrics(cfg)
    model = build_model(cfg)
    if classes:
        _check_heads(model, next(iter(classes)))
    facts.append(check_room(cfg, model))
    table = norm_table(model, cfg)
    warnings += [f"warning: {warning}" for warning in table.warnings]
    return "\n".join(["pre-flight:", *filter(None, facts), *([table.text()] if norms else []), *warnings])


def _check_sets(cfg: Config, split: str) -> Iterator[tuple[str, tuple[str, ...], str, list[str]]]:
    """Yield of each data set that reads COCO's format its setting, classes, what its annotation file has, and warnings.

    Raises:
        ValueError: errors in it.
    """
    judged = {find_ann_file(metric) for _, metric in metrics(cfg, "val")}
    for where, dataset in datasets(cfg, split):
        classes, ann_file = find_classes(dataset, cfg), find_ann_file(dataset)
        if classes is None or ann_file is None:
            continue
        size = ann_file.stat().st_size
        if size > LARGEST:
            yield where, classes, f"{ann_file}: {size / 2**30:.1f} GiB, not read; tools/check_dataset.py does", []
            continue
        findings = check_quickly(ann_file, find_img_dir(dataset), classes=classes, masks=_loads_masks(dataset))
        errors = findings.errors
        # Training does without; COCO evaluation does not.
        if ann_file not in judged:
            errors.pop("iscrowd_missing", None)
        if "mask_missing" in findings.counts:
            errors["mask_missing"] = findings.counts["mask_missing"]
        if errors:
            found = "; ".join(f"{count} {kind} ({findings.examples[kind][0]})" for kind, count in errors.items())
            raise ValueError(f"{ann_file} ({where}.ann_file) is not fit for use: {found}. {_WAY_OUT}")
        yield where, classes, _summary(findings), findings.lines("warning")


def _check_same(classes: dict[tuple[str, ...], str]) -> None:
    """Check that all data sets have the same classes.

    Raises:
        ValueError: they have not, so that a label is one name here and another there.
    """
    if len(classes) < 2:
        return
    (one, here), (other, there) = list(classes.items())[:2]
    labels = range(min(len(one), len(other)))
    differ = [f"label {i} is {one[i]!r} and {other[i]!r}" for i in labels if one[i] != other[i]]
    what = differ[0] if differ else f"{len(one)} and {len(other)} of them"
    raise ValueError(f"{here} and {there} have other classes: {what}. Give both the same metainfo=dict(classes=...)")


def _loads_masks(dataset: Any) -> bool:
    transforms = [transform for transform in dataset.get("pipeline") or () if isinstance(transform, dict)]
    return any(transform.get("with_mask") for transform in transforms)


def _summary(findings: Findings) -> str:
    figures = findings.statistics
    text = f"{figures['images']} images, {figures['annotations']} objects, {figures['categories']} categories"
    left_out = figures["left_out_of_training"]
    return f"{findings.ann_file}: {text}" + (f"; {left_out} objects are left out of training" if left_out else "")


def _check_metrics(cfg: Config) -> Iterator[str]:
    """Yield a warning for each metric that judges by another file than the validation reads."""
    read = {find_ann_file(dataset) for _, dataset in datasets(cfg, "val")}
    for where, metric in metrics(cfg, "val"):
        judged = find_ann_file(metric)
        if judged is not None and read and not any(path and _is_same(path, judged) for path in read):
            yield (
                f"warning: {where}.ann_file is {judged}, but val_dataloader reads "
                f"{', '.join(map(str, read))}: image ids must be the same"
            )


def _is_same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


def _check_heads(model: nn.Module, classes: tuple[str, ...]) -> None:
    """Check that heads count as many classes as there are; mmdet's NumClassCheckHook would, in an epoch.

    Raises:
        ValueError: one does not.
    """
    from mmdet.models.roi_heads.mask_heads import FusedSemanticHead

    wrong = {
        name: module.num_classes
        for name, module in model.named_modules()
        # A backbone's are those of its pretraining.
        if "head" in name
        and not name.endswith("rpn_head")
        and isinstance(getattr(module, "num_classes", None), int)
        and not isinstance(module, FusedSemanticHead)
        and not getattr(module, "class_agnostic", False)
        and module.num_classes != len(classes)
    }
    if wrong:
        heads = ", ".join(f"{name} has num_classes={count}" for name, count in wrong.items())
        options = " ".join(f"model.{name}.num_classes={len(classes)}" for name in wrong)
        raise ValueError(f"the data have {len(classes)} classes, but {heads}: --cfg-options {options}")
