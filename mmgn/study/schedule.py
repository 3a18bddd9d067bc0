"""The same training at another batch size: the linear rule, and a schedule that is the same over images."""

import copy
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope


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


def count_images(cfg: Config) -> int:
    """Return how many images an epoch of a config has.

    Raises:
        ValueError: its data set cannot be built.
    """
    init_default_scope(cfg.get("default_scope") or "mmdet")
    try:
        return len(DATASETS.build(copy.deepcopy(cfg.train_dataloader.dataset)))
    # What a constructor raises is up to its author.
    except Exception as error:
        raise ValueError(f"the training images of {cfg.filename} cannot be read: {error}") from error


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
        ValueError: the config has no learning rate or no base batch size, or an epoch has not one batch.
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
    # A batch sampler draws the batches in the loader's place.
    (loader.get("batch_sampler") or loader)["drop_last"] = True

    by_iterations = "max_iters" in loop
    budget = loop.max_iters * base / num_images if by_iterations else loop.max_epochs
    stretch = (epochs or budget) / budget
    if by_iterations:
        iterations = loop.max_iters = loop.val_interval = max(1, round(loop.max_iters * stretch / factor))
    else:
        loop.max_epochs = loop.val_interval = epochs or loop.max_epochs
        # As DefaultSampler pads the shares of the processes.
        iterations = loop.max_epochs * (-(-num_images // processes) // batch_size)
    schedulers = cfg.get("param_scheduler") or []
    for scheduler in schedulers if isinstance(schedulers, list) else [schedulers]:
        _scale(scheduler, stretch if scheduler.get("by_epoch", True) else stretch / factor, factor)
    return iterations


def _scale(scheduler: dict[str, Any], time: float, rate: float) -> None:
    """Scale a scheduler's points in time, and what it tells of rates that is not relative to the optimizer's."""
    for key in ("begin", "end", "T_max", "step_size"):
        if key in scheduler:
            scheduler[key] = round(scheduler[key] * time)
    if "end" in scheduler:
        scheduler["end"] = max(scheduler["end"], scheduler.get("begin", 0) + 1)
    if "milestones" in scheduler:
        scheduler["milestones"] = [max(1, round(step * time)) for step in scheduler["milestones"]]
    if scheduler.get("eta_min"):
        scheduler["eta_min"] *= rate
