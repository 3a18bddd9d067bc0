"""What a study varies and what it holds, for people."""

from collections.abc import Mapping
from pathlib import Path

from mmengine.config import Config

from mmgn.study import schedule
from mmgn.study.cell import base_groups
from mmgn.study.grid import Request, make_grid
from mmgn.study.study import Study

_EXTREMES = {"groups": "LN", "channels per group": "IN"}


def head(study: Study, request: Request, base: Config, images: Mapping[str, int], epochs: int | None) -> list[str]:
    """Return the lines that are printed before a study and stand at the head of study.csv.

    Args:
        study: its cells planned.
        request: what is varied.
        base: the base config.
        images: of each data set, how many an epoch has.
        epochs: in the place of the base config's budget.
    """
    return [
        f"task: {study.options.task}, {len(study.cells)} cells",
        *_varied(study, request, base),
        *_start(study, request, base),
        *_held(study, base, images, epochs),
    ]


def _varied(study: Study, request: Request, base: Config) -> list[str]:
    norms, sizes, data = (", ".join(map(str, each)) for each in (request.norms, request.batch_sizes, request.data))
    seeds = ", ".join(map(str, range(request.seeds)))
    (groups,) = (f"{key}={value}" for key, value in base_groups(base).items())
    lines = [
        f"varied: norm ({norms}; GN has {groups}, LN 1 group, IN 1 channel per group); batch size per process "
        f"({sizes}); seed ({seeds}); data ({data})"
    ]
    for name, values in (("groups", request.groups), ("channels per group", request.channels_per_group)):
        if values:
            where = f"at batch {study.largest} on {request.data[0]}"
            lines.append(f"varied: {name} of GN ({', '.join(map(str, values))}) {where}; 1 is {_EXTREMES[name]}")
    return lines


def _start(study: Study, request: Request, base: Config) -> list[str]:
    if "BN*" not in request.norms:
        return ["held: random weights to start from"]
    if study.pretrained:
        return [
            f"start: random weights; BN* has those of {study.pretrained} in its backbone, trained on ImageNet",
            "not held: BN* gets images normalised by ImageNet's mean and deviation, and is the identity outside the "
            "backbone, where it has no statistics",
        ]
    lines = [f"start: random weights; BN* has those of BN at batch {study.largest}, same data and seed"]
    added = set(study.cells).difference(make_grid(request, base_groups(base), own_pretraining=False))
    if added:
        lines.append(f"added: {len(added)} cell{'s' * (len(added) > 1)} of that BN, which was not asked for")
    return lines


def _held(study: Study, base: Config, images: Mapping[str, int], epochs: int | None) -> list[str]:
    processes = study.options.processes
    rate, batch = schedule.base_lr(base), schedule.base_batch_size(base)
    budgets = "; ".join(f"{_budget(base, count, epochs)} of {name}" for name, count in images.items())
    own = processes > 1 and any(cell.norm == "BN" for cell in study.cells)
    return [
        f"held: model, augmentation, optimizer and evaluation of {Path(base.filename).name}; {processes} "
        f"process{'es' * (processes > 1)}",
        f"held: the budget in images: {budgets}; the last batch of an epoch is left out where images do not fill it",
        f"held: the learning rate by the linear rule, {rate:g} for {batch} images; warm-up and steps come after the "
        "same number of images",
        "held: one validation, of the last weights",
        *["not held: each process validates its share of the images with BN's running statistics of its own"] * own,
    ]


def _budget(base: Config, num_images: int, epochs: int | None) -> str:
    if epochs is None and "max_iters" in base.train_cfg:
        return f"{base.train_cfg.max_iters * schedule.base_batch_size(base)} images"
    epochs = epochs or base.train_cfg.max_epochs
    return f"{epochs * num_images} images ({epochs} x {num_images})"
