"""fuse_gn: one pass over a built model that makes each FusedGN and the activation after it one call."""

from dataclasses import dataclass

from torch import nn

from mmgn.layers import FusedGN
from mmgn.models.forwards import known_forward, sites
from mmgn.models.fused_forward import activation_of, fused_class, obstacle, own_class
from mmgn.models.listing import aligned, first


@dataclass(frozen=True)
class NormSite:
    """One FusedGN of a model where one of its modules calls it.

    Attributes:
        name: the norm's, as in ``model.named_modules()``.
        caller: class of the module that calls it.
        applies: 'relu', 'silu', 'residual + relu' or 'residual + silu'; '' if it was left.
        left_because: the reason; '' if it was fused.
    """

    name: str
    caller: str
    applies: str = ""
    left_because: str = ""


@dataclass(frozen=True)
class FusionReport:
    """What :func:`fuse_gn` fused and what it left; its text is a summary by kind."""

    sites: tuple[NormSite, ...]

    @property
    def fused(self) -> tuple[NormSite, ...]:
        """The norms that apply their activation themselves."""
        return tuple(site for site in self.sites if site.applies)

    @property
    def left(self) -> tuple[NormSite, ...]:
        """The norms that do not, with the reason in ``left_because``."""
        return tuple(site for site in self.sites if not site.applies)

    def __str__(self) -> str:
        """Return a line for all and one for each kind: how many, what they apply, in what, the first one's name."""
        if not self.sites:
            return "no FusedGN in the model, nothing to fuse"
        kinds: dict[tuple[str, str], list[str]] = {}
        for site in (*self.fused, *self.left):
            what = site.applies or f"left: {site.left_because}"
            kinds.setdefault((what, site.caller), []).append(site.name)
        rows = aligned((f"  {len(names)}", *kind, first(names)) for kind, names in kinds.items())
        head = f"{len(self.fused)} of {len(self.sites)} FusedGN apply the activation that follows them"
        return "\n".join([head, *rows])


def fuse_gn(model: nn.Module) -> FusionReport:
    """Fold the activation after each FusedGN of a built model into it, and a residual block's addition as well.

    Covers ReLU and SiLU (Swish) in mmcv's ``ConvModule`` of order conv, norm, act; in the ``BasicBlock``,
    ``Bottleneck`` and stem of mmdet's, mmseg's and mmpretrain's ``ResNet``; in mmdet's ``Bottle2neck``; in
    ``nn.Sequential``; and in their subclasses that inherit ``forward``. The model is changed in place, and only in the
    class of those modules: names, state dict, parameters and hooks stay, ``isinstance`` holds, ``copy.deepcopy`` and
    pickle work. Where hooks want the tensor between norm and activation, now or later, the two are called one by one.
    A second call changes nothing.

    Args:
        model: the model, or its wrapper (DDP).

    Returns:
        Every FusedGN with what it applies now, or why it was left.

    Raises:
        TypeError: not a module.

    Example:
        >>> print(fuse_gn(nn.Sequential(nn.Conv2d(3, 32, 3), FusedGN(32), nn.ReLU())))
        1 of 1 FusedGN apply the activation that follows them
          1  relu  Sequential  1
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a built torch.nn.Module, got {type(model).__name__}.")
    found: dict[str, NormSite] = {}
    # A list, for the classes change on the way.
    for path, module in list(model.named_modules()):
        called = _called_by(path, module)
        found |= called
        forward = known_forward(module)
        if forward and not isinstance(module, forward) and any(site.applies for site in called.values()):
            module.__class__ = fused_class(type(module), forward)
        for name, child in module._modules.items():
            name = f"{path}.{name}".lstrip(".")
            if isinstance(child, FusedGN) and name not in found:
                caller = own_class(module).__name__
                found[name] = NormSite(name, caller, left_because=f"how {caller} calls it is not known")
    return FusionReport(tuple(found.values()))


def _called_by(path: str, module: nn.Module) -> dict[str, NormSite]:
    """Return the norms that the module calls in a known forward, by their names."""
    called = {}
    for site in sites(module):
        name = f"{path}.{site.name}".lstrip(".")
        reason = site.obstacle or obstacle(site.norm, site.act)
        applies = ""
        if not reason and site.act is not None:
            applies = ("residual + " if site.residual else "") + str(activation_of(site.act))
        called[name] = NormSite(name, own_class(module).__name__, applies, reason)
    return called
