"""The same training at another batch size: the linear rule, and a schedule that is the same over images."""

import copy
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

#: Those whose points in time are begin, end, T_max, step_size and milestones alone.
_SCHEDULERS = ("ConstantLR", "CosineAnnealingLR", "LinearLR", "MultiStepLR", "PolyLR", "QuadraticWarmupLR", "StepLR")


def base_batch_size(cfg: Config) -> int:
    """Return the total batch that a config's learning rate is meant for.

    Raises:
        ValueError: it does not tell.
    """
    size = (cfg.get("auto_scale_lr") or {}).get("base_batch_size")
    if not size:
        raise ValueError(
            f"{cfg.filename} needs auto_scale_lr=dict(base_batch_size=...), the total batch that its learning rate is "
            "meant for: the linear rule starts there"
        )
    return int(size)


def base_lr(cfg: Config) -> float:
    """Return a config's learning rate.

    Raises:
        ValueError: it has none, or several.
    """
    rate = (cfg.optim_wrapper.get("optimizer") or {}).get("lr")
    if not rate:
        raise ValueError(f"{cfg.filename} has no optim_wrapper.optimizer.lr, which the linear rule scales")
    return float(rate)


def count_images(cfg: Config, split: str) -> int:
    """Return how many images a config's training or validation has.

    Args:
        cfg: the config.
        split: 'train' or 'val'.

    Raises:
        ValueError: its data set cannot be built, or has none.
    """
    init_default_scope(cfg.get("default_scope") or "mmdet")
    try:
        count = len(DATASETS.build(copy.deepcopy(cfg[f"{split}_dataloader"].dataset)))
    # What a constructor raises is up to its author.
    except Exception as error:
        raise ValueError(f"{split}_dataloader.dataset of {cfg.filename} cannot be read: {error}") from error
    if not count:
        raise ValueError(f"{split}_dataloader.dataset of {cfg.filename} has no images")
    return count


def fit(cfg: Config, batch_size: int, processes: int, num_images: int, epochs: int | None = None) -> int:
    """Train on as many images as before, at another batch size.

    The learning rate goes by the linear rule. What a schedule counts in iterations is scaled, so that it comes after
    the same number of images; what it counts in epochs stays. The last batch of an epoch is left out where the images
    do not fill it: batch norm's statistics would be another batch size's, or none.

    Args:
        cfg: changed in place.
        batch_size: of a process.
        processes: how many.
        num_images: of :func:`count_images`.
        epochs: in the place of the config's budget; schedules are stretched to fit.

    Returns:
        How many iterations that is.

    Raises:
        ValueError: the config has no learning rate, no base batch size or a scheduler of another kind, or an epoch has
            not one batch.
    """
    total, base = batch_size * processes, base_batch_size(cfg)
    if total > num_images:
        raise ValueError(
            f"a batch of {batch_size} x {processes} is more than the {num_images} training images: leave {batch_size} "
            "out of --batch-sizes"
        )
    rate = base_lr(cfg)
    factor = total / base
    cfg.optim_wrapper.optimizer.lr = rate * factor
    cfg.auto_scale_lr.enable = False
    loader, loop = cfg.train_dataloader, cfg.train_cfg
    loader.batch_size = batch_size
    # As DefaultSampler pads the shares of the processes.
    share = -(-num_images // processes)
    if loader.get("batch_sampler"):
        # It draws the batches in the loader's place. Where they fill the share, mmdet's would leave a whole one out of
        # those processes whose landscape and portrait images do not fill theirs, and the others would wait for it.
        loader.batch_sampler.drop_last = share % batch_size > 0
    else:
        loader.drop_last = True

    by_iterations = "max_iters" in loop
    budget = loop.max_iters * base / num_images if by_iterations else loop.max_epochs
    stretch = (epochs or budget) / budget
    if by_iterations:
        iterations = loop.max_iters = loop.val_interval = max(1, round(loop.max_iters * stretch / factor))
    else:
        loop.max_epochs = loop.val_interval = epochs or loop.max_epochs
        iterations = loop.max_epochs * (share // batch_size)
    schedulers = cfg.get("param_scheduler") or []
    for scheduler in schedulers if isinstance(schedulers, list) else [schedulers]:
        _check_scheduler(cfg, scheduler)
        _scale(scheduler, stretch if scheduler.get("by_epoch", True) else stretch / factor, factor)
    return iterations


def _check_scheduler(cfg: Config, scheduler: dict[str, Any]) -> None:
    kind = getattr(scheduler["type"], "__name__", scheduler["type"]).rpartition(".")[2]
    if kind not in _SCHEDULERS:
        raise ValueError(
            f"{cfg.filename}: param_scheduler has a {kind}, which cannot be fitted to another batch size; what can is "
            f"{', '.join(_SCHEDULERS)}"
        )


def _scale(scheduler: dict[str, Any], time: float, rate: float) -> None:
    """Scale a scheduler's points in time, and what it tells of rates that is not relative to the optimizer's."""
    for key, least in (("begin", 0), ("end", 1), ("T_max", 1), ("step_size", 1)):
        if scheduler.get(key) is not None:
            scheduler[key] = max(least, round(scheduler[key] * time))
    if "end" in scheduler:
        scheduler["end"] = max(scheduler["end"], scheduler.get("begin", 0) + 1)
    if "milestones" in scheduler:
        scheduler["milestones"] = [max(1, round(step * time)) for step in scheduler["milestones"]]
    if scheduler.get("eta_min"):
        scheduler["eta_min"] *= rate
