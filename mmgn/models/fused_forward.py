"""A norm and the activation after it as one call, and the classes of the modules that make it.

The classes hold no state and change no child, so a norm that somebody else calls too is the norm it was. Whether one
call is the same as two is asked at every call: hooks and replaced children take effect when they come.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.modules.module import (
    _global_backward_hooks,
    _global_backward_pre_hooks,
    _global_forward_hooks,
    _global_forward_pre_hooks,
)

from mmgn.layers import FusedGN

# By name, for mmcv may not be there. Swish is SiLU: x * sigmoid(x).
_ACTIVATIONS = {
    ("torch.nn.modules.activation", "ReLU"): "relu",
    ("torch.nn.modules.activation", "SiLU"): "silu",
    ("mmcv.cnn.bricks.swish", "Swish"): "silu",
}


class Site(NamedTuple):
    """A norm that a module calls, and what comes after it."""

    #: Below the module.
    name: str
    norm: nn.Module
    act: nn.Module | None
    residual: bool = False
    #: Why the module cannot call the two as one, if it cannot.
    obstacle: str = ""


def activation_of(act: nn.Module) -> str | None:
    """Return 'relu' or 'silu', None for any other activation."""
    kind = type(act)
    return _ACTIVATIONS.get((kind.__module__, kind.__qualname__))


def obstacle(norm: nn.Module, act: nn.Module | None) -> str:
    """Tell why ``act(norm(x))`` cannot be one call of the norm; '' where it can."""
    if not isinstance(norm, FusedGN):
        return "not a FusedGN"
    if act is None:
        return "no activation follows"
    if activation_of(act) is None:
        return f"{type(act).__name__} follows, neither ReLU nor SiLU"
    if norm.activation != "none":
        return f"applies {norm.activation} of its own"
    if type(norm).forward is not FusedGN.forward or "forward" in norm.__dict__ or "forward" in act.__dict__:
        return "the forward of norm or activation was replaced"
    if hooked(norm) or hooked(act):
        return "hooks on norm or activation want what is between them"
    return ""


def norm_act(norm: nn.Module, act: nn.Module, x: Tensor, residual: Tensor | None = None) -> Tensor:
    """Return ``act(norm(x) + residual)``, by one call of the norm where that is the same."""
    # An addition in place, as mmdet's, also takes other dtypes and smaller shapes.
    fits = residual is None or (residual.dtype == x.dtype and residual.shape == x.shape)
    if fits and not obstacle(norm, act):
        return norm(x, residual=residual, activation=activation_of(act))
    x = norm(x)
    if residual is not None:
        x += residual
    return act(x)


class FusedForward(nn.Module):
    """Base of the forwards; put in front of a module's own class by :func:`fused_class`."""

    @staticmethod
    def _sites(module: Any) -> Iterator[Site]:
        """Yield the norms that ``module`` calls."""
        raise NotImplementedError

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        # Pickle finds a class by its name, and the fused class is made at run time.
        reduced = super().__reduce_ex__(protocol)
        assert isinstance(reduced, tuple)
        forward, cls, *_ = type(self).__bases__
        return (_new, (cls, forward), *reduced[2:])


_CLASSES: dict[tuple[type, type], type[nn.Module]] = {}


def fused_class(cls: type[nn.Module], forward: type[FusedForward]) -> type[nn.Module]:
    """Return the subclass of ``cls`` with that forward, always the same one."""
    if (cls, forward) not in _CLASSES:
        _CLASSES[cls, forward] = type(f"Fused{cls.__name__}", (forward, cls), {"__module__": __name__})
    return _CLASSES[cls, forward]


def _new(cls: type[nn.Module], forward: type[FusedForward]) -> nn.Module:
    fused = fused_class(cls, forward)
    return fused.__new__(fused)


def own_class(module: nn.Module) -> type[nn.Module]:
    """Return the module's class as its author knows it."""
    return type(module).__bases__[1] if isinstance(module, FusedForward) else type(module)


def hooked(module: nn.Module) -> bool:
    """Return whether hooks want what goes into or comes out of a module."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        # torch 2.5 has a function for these.
        or _global_forward_hooks
        or _global_forward_pre_hooks
        or _global_backward_hooks
        or _global_backward_pre_hooks
    )
