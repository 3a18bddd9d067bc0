"""What training does to each norm of a model: asked of the model in training mode, and of the config's optimizer."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from torch import nn

from mmgn.models.norms import is_batch_norm, norm_layers


@dataclass(frozen=True)
class NormRow:
    """One norm under training.

    Attributes:
        name: as in ``model.named_modules()``.
        kind: as in :class:`mmgn.models.norms.NormLayer`.
        num_channels: C.
        num_groups: None where the norm has none.
        trains: whether weight or bias do.
        decays: whether the optimizer decays them; None where no optimizer is known.
        updates_statistics: whether batches move its running mean and variance; None where it has none.
    """

    name: str
    kind: str
    num_channels: int
    num_groups: int | None
    trains: bool
    decays: bool | None
    updates_statistics: bool | None


def norm_rows(model: nn.Module, cfg: Any = None) -> tuple[NormRow, ...]:
    """Return the state of each norm in training, in the order of ``model.named_modules()``.

    Args:
        model: left as it is.
        cfg: config with ``optim_wrapper``; without one, ``decays`` is None.

    Raises:
        TypeError: not a module.
        ValueError: the optimizer cannot be built.
    """
    rows = []
    norms = norm_layers(model)
    with _training(model):
        decay = _weight_decay(model, cfg)
        for norm in norms:
            # Not those of an activation that it holds.
            parameters = [p for p in norm.module.parameters(recurse=False) if p.requires_grad]
            decays = None if decay is None else any(decay.get(id(p), 0) > 0 for p in parameters)
            tracks = is_batch_norm(norm.module) or getattr(norm.module, "track_running_stats", False)
            # A frozen one by its class has no such switch.
            updates = norm.module.training and getattr(norm.module, "track_running_stats", False)
            rows.append(
                NormRow(
                    norm.name,
                    norm.kind,
                    norm.num_channels,
                    norm.num_groups,
                    trains=bool(parameters),
                    decays=decays,
                    updates_statistics=updates if tracks else None,
                )
            )
    return tuple(rows)


@contextmanager
def _training(model: nn.Module) -> Iterator[None]:
    """Put the model into training mode as a runner does: backbones freeze stages and norms in ``train()``."""
    modes = {module: module.training for module in model.modules()}
    trainable = {p: p.requires_grad for p in model.parameters()}
    model.train()
    try:
        yield
    finally:
        # Not by train(), which would freeze again.
        for module, mode in modes.items():
            module.training = mode
        for parameter, requires_grad in trainable.items():
            parameter.requires_grad = requires_grad


def _weight_decay(model: nn.Module, cfg: Any) -> dict[int, float] | None:
    """Return each parameter's weight decay, by id; None without an optimizer."""
    wrapper = (cfg or {}).get("optim_wrapper")
    if not wrapper or not wrapper.get("optimizer"):
        return None
    # The wrapper's own type may want a GPU (AmpOptimWrapper); decay is not its matter.
    keys = ("optimizer", "paramwise_cfg", "constructor")
    wrapper = {key: wrapper[key] for key in keys if wrapper.get(key) is not None}
    try:
        with DefaultScope.overwrite_default_scope(cfg.get("default_scope") or "mmengine"), _quiet():
            optimizer = build_optim_wrapper(model, wrapper).optimizer
    # What a constructor raises is up to its author.
    except Exception as error:
        raise ValueError(f"the optimizer of optim_wrapper={wrapper} cannot be built: {error}") from error
    return {id(p): group.get("weight_decay") or 0.0 for group in optimizer.param_groups for p in group["params"]}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep mmengine from logging a line for each parameter."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
