"""One norm of a built model and the group norm that takes its place."""

from typing import Any

from torch import Tensor, nn

from mmgn.layers import FusedGN
from mmgn.models.fused_forward import activation_of
from mmgn.models.norms import NormLayer, is_batch_norm
from mmgn.ops.reference import ACTIVATIONS

# Torchvision's, detectron2's, mmdet's, DETR's and its descendants': one name, one meaning.
FROZEN_BN = "FrozenBatchNorm2d"
# A norm with any other forward may do more than normalise. By name, for the libraries may not be there.
_PLAIN = {
    ("torch.nn.modules.batchnorm", "_BatchNorm.forward"),
    ("torch.nn.modules.batchnorm", "SyncBatchNorm.forward"),
    ("torch.nn.modules.normalization", "GroupNorm.forward"),
    ("mmcv.ops.sync_bn", "SyncBatchNorm.forward"),
    ("timm.layers.norm", "GroupNorm.forward"),
    ("timm.layers.norm", "GroupNorm1.forward"),
    ("mmgn.layers.group_norm", "FusedGN.forward"),
}
# These call their ``drop`` and ``act`` after the norm.
_WITH_ACTIVATION = {
    *(
        ("timm.layers.norm_act", f"{name}.forward")
        for name in ("BatchNormAct2d", "SyncBatchNormAct", "FrozenBatchNormAct2d", "GroupNormAct", "GroupNorm1Act")
    ),
    ("mmgn.models.norm_replacement", "_ThenActivation.forward"),
}
_CARRIED_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_is_full_backward_hook",
)
_STATE_DICT_HOOKS = (
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)


class _ThenActivation(nn.Module):
    """What comes after a norm that held more, as timm's do: its ``drop`` and ``act``, under their names."""

    drop: nn.Module
    act: nn.Module

    def forward(self, input: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Return ``act(drop(norm(input)))``."""
        return self.act(self.drop(super().forward(input, *args, **kwargs)))


class FusedGNAct(_ThenActivation, FusedGN):
    """A FusedGN in the place of a norm with an activation that it cannot apply itself."""


class GNAct(_ThenActivation, nn.GroupNorm):
    """An ``nn.GroupNorm`` in the place of a norm with an activation."""


def why_left(norm: NormLayer, to: str) -> str:
    """Tell why a norm cannot become ``to``, 'FusedGN' or 'GN'; '' where it can."""
    module = norm.module
    if not (is_batch_norm(module) or isinstance(module, nn.GroupNorm)):
        return "not a batch norm"
    if norm.kind == to and type(module) in (FusedGN, FusedGNAct, nn.GroupNorm, GNAct):
        return f"{to} already"
    known = _known(module, _PLAIN | _WITH_ACTIVATION) or type(module).__name__ == FROZEN_BN
    if not known or "forward" in module.__dict__:
        return f"what {type(module).__name__} computes is not known"
    held = {**module._parameters, **module._buffers}
    if any(getattr(module, name, None) is not held.get(name) for name in ("weight", "bias")):
        return "its weight or bias is computed from others"
    return ""


def has_state_dict_hooks(module: nn.Module) -> bool:
    """Return whether hooks are bound to how the module is saved and loaded; those cannot be carried over."""
    return any(getattr(module, name, None) for name in _STATE_DICT_HOOKS)


def group_norm_for(norm: NormLayer, to: str, num_groups: int) -> nn.GroupNorm:
    """Return the group norm for the place of ``norm``, with its parameters, eps, mode, hooks and activation."""
    old = norm.module
    eps, affine = getattr(old, "eps", 1e-5), getattr(old, "weight", None) is not None
    drop, act = _after(old)
    activation = "none" if type(act) is nn.Identity else activation_of(act)
    alone = type(drop) is nn.Identity and activation in (ACTIVATIONS if to == "FusedGN" else ("none",))
    new: nn.GroupNorm
    # On meta, for the parameters will be the old one's.
    if to == "GN":
        new = (nn.GroupNorm if alone else GNAct)(num_groups, norm.num_channels, eps, affine, device="meta")
    elif alone:
        new = FusedGN(norm.num_channels, num_groups, eps, affine, activation=str(activation), device="meta")
    else:
        new = FusedGNAct(norm.num_channels, num_groups, eps, affine, device="meta")
    if isinstance(new, _ThenActivation):
        new.drop, new.act = drop, act
    for name in ("weight", "bias"):
        value = getattr(old, name, None)
        # A frozen batch norm has buffers.
        if value is not None and not isinstance(value, nn.Parameter):
            value = nn.Parameter(value.detach(), requires_grad=False)
        setattr(new, name, value)
    new.training = old.training
    for name in _CARRIED_HOOKS:
        # The same objects, so that the handles that were given out can remove the hooks.
        setattr(new, name, getattr(old, name))
    return new


def _after(module: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Return what a norm calls after itself."""
    if isinstance(module, FusedGN) and module.activation != "none":
        return nn.Identity(), {"relu": nn.ReLU, "silu": nn.SiLU}[module.activation]()
    if not _known(module, _WITH_ACTIVATION):
        return nn.Identity(), nn.Identity()
    # timm's SyncBatchNormAct may be without.
    return getattr(module, "drop", None) or nn.Identity(), getattr(module, "act", None) or nn.Identity()


def _known(module: nn.Module, forwards: set[tuple[str, str]]) -> bool:
    forward = type(module).forward
    return (forward.__module__, forward.__qualname__) in forwards
