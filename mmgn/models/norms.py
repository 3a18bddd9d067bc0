"""The norms of a built model, whichever library they come from."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.parameter import UninitializedParameter

from mmgn.layers import FusedGN

#: The kinds that normalise with the statistics of a batch, or of many.
BATCH_NORMS = ("BN", "SyncBN", "FrozenBN")

# The first that fits: FusedGN is a GroupNorm, SyncBatchNorm a _BatchNorm.
_KINDS: tuple[tuple[type[nn.Module], str], ...] = (
    (FusedGN, "FusedGN"),
    (nn.GroupNorm, "GN"),
    (nn.SyncBatchNorm, "SyncBN"),
    (_BatchNorm, "BN"),
    (_InstanceNorm, "IN"),
    (nn.LayerNorm, "LN"),
)


@dataclass(frozen=True)
class NormLayer:
    """One norm of a model.

    Attributes:
        name: as in ``model.named_modules()``.
        module: the norm.
        kind: 'BN', 'SyncBN', 'FrozenBN', 'GN', 'FusedGN', 'LN' or 'IN'.
        num_channels: C; 0 for a lazy norm that has seen no input.
        num_groups: None where the norm has none.
    """

    name: str
    module: nn.Module
    kind: str
    num_channels: int
    num_groups: int | None = None


def norm_kind(module: nn.Module) -> str | None:
    """Return which norm a module is, None if it is not one.

    Subclasses are what their parents are: mmpretrain's LN2d is 'LN', timm's BatchNormAct2d 'BN'. Beyond torch's own, a
    module with a running mean and variance is a batch norm, a frozen one if its weight is a buffer too (torchvision,
    detectron2, mmdet).
    """
    for cls, kind in _KINDS:
        if isinstance(module, cls):
            return kind
    if any(module._buffers.get(name) is None for name in ("running_mean", "running_var")):
        return None
    if "weight" in module._buffers:
        return "FrozenBN"
    return "SyncBN" if "Sync" in type(module).__name__ else "BN"


def is_batch_norm(module: nn.Module) -> bool:
    """Return whether a module is a batch norm: synchronised, frozen and lazy ones included."""
    return norm_kind(module) in BATCH_NORMS


def norm_layers(model: nn.Module) -> tuple[NormLayer, ...]:
    """Return the norms of a built model in the order of ``named_modules()``; one in two places comes once.

    Raises:
        TypeError: not a module, or TorchScript in it.

    Example:
        >>> norm_layers(nn.Sequential(nn.Conv2d(3, 32, 3), FusedGN(32, 8)))[0].num_groups
        8
    """
    check_model(model)
    return tuple(_norm_layers(model))


def check_model(model: nn.Module) -> None:
    """Raise a TypeError for what is not a module, or holds TorchScript."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a built torch.nn.Module, got {type(model).__name__}.")
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise TypeError(
                f"{name or 'model'} is TorchScript ({module.original_name}), whose norms are compiled; list or convert "
                "them before scripting."
            )


def _norm_layers(model: nn.Module) -> Iterator[NormLayer]:
    for name, module in model.named_modules():
        kind = norm_kind(module)
        if kind is not None:
            groups = module.num_groups if isinstance(module, nn.GroupNorm) else None
            yield NormLayer(name, module, kind, _num_channels(module), groups)


def _num_channels(module: nn.Module) -> int:
    if isinstance(module, nn.GroupNorm):
        return module.num_channels
    if isinstance(module, nn.LayerNorm):
        return module.normalized_shape[0]
    if isinstance(module, (_BatchNorm, _InstanceNorm)):
        return 0 if isinstance(module.weight, UninitializedParameter) else module.num_features
    running_mean = module._buffers["running_mean"]
    assert running_mean is not None
    return running_mean.numel()
