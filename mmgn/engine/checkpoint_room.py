"""The room that a training's checkpoints will take on disk, against what is free."""

import shutil
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import nn

_GIB = 2**30


def check_room(cfg: Config, model: nn.Module) -> str:
    """Check that the checkpoints to come fit on the disk of the work dir.

    Args:
        cfg: with ``default_hooks.checkpoint``, whose ``interval``, ``max_keep_ckpts`` and ``save_best`` count.
        model: the config's, for its size.

    Returns:
        What they take and what is free; '' where they go to a storage backend, or none are written.

    Raises:
        ValueError: they do not fit.
    """
    hook = (cfg.get("default_hooks") or {}).get("checkpoint") or {}
    folder = str(hook.get("out_dir") or cfg.work_dir)
    if "://" in folder or hook.get("backend_args") or hook.get("file_client_args"):
        return ""
    kept, best = _count(cfg, hook)
    if not kept and not best:
        return ""
    weights, whole = checkpoint_bytes(cfg, model)
    needed = kept * whole + best * weights
    # Those of a run that goes on are there already.
    needed -= sum(path.stat().st_size for path in Path(cfg.work_dir).glob("*.pth"))
    place = Path(folder).absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    what = f"{kept + best} checkpoints of up to {whole / 2**20:.0f} MiB"
    if free < needed:
        raise ValueError(
            f"{what} will need {needed / _GIB:.2f} GiB, and {place} has {free / _GIB:.2f} GiB free. Free some room, "
            "give another --work-dir, or keep fewer: --cfg-options default_hooks.checkpoint.max_keep_ckpts=1"
        )
    return f"{what} in {folder}, {free / _GIB:.1f} GiB free"


def checkpoint_bytes(cfg: Config, model: nn.Module) -> tuple[int, int]:
    """Return the sizes of the best checkpoint, which has weights alone, and of one to resume from."""
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    # A second set of weights.
    if any("EMAHook" in str(hook.get("type")) for hook in cfg.get("custom_hooks") or ()):
        weights *= 2
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    hook = (cfg.get("default_hooks") or {}).get("checkpoint") or {}
    states = _states((cfg.get("optim_wrapper") or {}).get("optimizer") or {}) if hook.get("save_optimizer", True) else 0
    return weights, weights + states * trained


def _count(cfg: Config, hook: Any) -> tuple[int, int]:
    """Return how many checkpoints there are at once: of those to resume from, and of the best."""
    loop = cfg.get("train_cfg") or {}
    total, interval = loop.get("max_epochs") or loop.get("max_iters") or 0, hook.get("interval", -1)
    # Epochs of an iteration-based loop, or iterations of an epoch: how many is not known yet.
    known = hook.get("by_epoch", True) == bool(loop.get("max_epochs", loop.get("by_epoch")))
    written = -(-total // interval) if interval > 0 and known else 1
    keep = hook.get("max_keep_ckpts", -1)
    # The next one is written before the oldest is removed.
    kept = min(written, keep + 1) if keep > 0 else written
    best = hook.get("save_best") or []
    best = [best] if isinstance(best, str) else best
    return kept if total and interval > 0 else 0, len(best) + bool(best)


def _states(optimizer: Any) -> int:
    """Return how many values an optimizer keeps for each that it trains."""
    name = str(optimizer.get("type"))
    if "Adam" in name or "Lamb" in name.title():
        return 2
    return 1 if optimizer.get("momentum") or "SGD" not in name else 0
