"""convert_norm: one pass over a built model that puts a group norm in the place of each batch norm."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from torch import nn

from mmgn.layers.group_norm import nearest_groups
from mmgn.models.listing import aligned, first
from mmgn.models.norm_replacement import group_norm_for, has_state_dict_hooks, why_left
from mmgn.models.norms import NormLayer, check_model, is_batch_norm, norm_kind, norm_layers
from mmgn.ops.functional import divisors

#: What :func:`convert_norm` converts to.
TARGETS = ("FusedGN", "GN")
# The paper's choice.
_DEFAULT_GROUPS = 32


@dataclass(frozen=True)
class NormConversion:
    """What became of one norm.

    Attributes:
        name: as in ``model.named_modules()``.
        kind: what it was, as in :class:`mmgn.models.norms.NormLayer`.
        num_channels: C.
        num_groups: of the norm in its place; None if it was left.
        rounded_from: the groups that do not divide C; None if the choice is not rounded.
        left_because: the reason; '' if it was converted.
    """

    name: str
    kind: str
    num_channels: int
    num_groups: int | None = None
    rounded_from: int | None = None
    left_because: str = ""


@dataclass(frozen=True)
class ConversionReport:
    """What :func:`convert_norm` converted and what it left; its text is a summary by kind."""

    to: str
    norms: tuple[NormConversion, ...]

    @property
    def converted(self) -> tuple[NormConversion, ...]:
        """The norms that are ``to`` now."""
        return tuple(norm for norm in self.norms if not norm.left_because)

    @property
    def left(self) -> tuple[NormConversion, ...]:
        """The norms that are what they were, with the reason in ``left_because``."""
        return tuple(norm for norm in self.norms if norm.left_because)

    @property
    def rounded(self) -> tuple[NormConversion, ...]:
        """The converted norms whose number of groups is the nearest valid one."""
        return tuple(norm for norm in self.norms if norm.rounded_from is not None)

    def __str__(self) -> str:
        """Return a line for all, one for each kind, and one for each number of channels that was rounded."""
        if not self.norms:
            return "no norm in the model, nothing to convert"
        kinds: dict[tuple[str, ...], list[str]] = {}
        for norm in (*self.converted, *self.left):
            what = f"left: {norm.left_because}" if norm.left_because else f"-> {self.to}"
            kinds.setdefault((norm.kind, what), []).append(norm.name)
        rounded: dict[tuple[str, ...], list[str]] = {}
        for norm in self.rounded:
            channels, groups, wanted = norm.num_channels, norm.num_groups, norm.rounded_from
            text = f"{channels} channels: {groups} groups, since {wanted} does not divide {channels}"
            rounded.setdefault((text,), []).append(norm.name)
        head = f"{len(self.converted)} of {len(self.norms)} norms converted to {self.to}"
        lines = [head, *_counted(kinds)]
        if rounded:
            lines += ["groups rounded to the nearest valid choice:", *_counted(rounded)]
        return "\n".join(lines)


def convert_norm(
    model: nn.Module,
    to: str = "FusedGN",
    *,
    num_groups: int | None = None,
    channels_per_group: int | None = None,
    where: str | Iterable[str] | None = None,
) -> ConversionReport:
    """Put a group norm in the place of each batch norm of a built model, and of each ``nn.GroupNorm``.

    In place, whichever library's the modules are. Names, weight and bias (the parameters themselves), eps, mode and
    hooks stay, so the state dict loses the running statistics and nothing else; a norm in two places stays one.
    References from outside the module tree (a list, ``__dict__``) keep the old norm. An ``nn.GroupNorm`` keeps its
    groups, and a norm of timm's its activation. LN, IN and whatever computes something else are left; the report says
    why. Weights that were trained with batch norm are a start for group norm, not a result: they want fine-tuning.

    A batch norm is often frozen for the sake of its statistics alone (BN*). So what takes its place trains if the layer
    before it does: a frozen stage stays frozen. Any other norm trains if it did. Call it before the optimizer is built
    and before DDP wraps the model.

    Args:
        model: the model; not a norm itself.
        to: 'FusedGN' or 'GN' (``nn.GroupNorm``).
        num_groups: G in the place of batch norms, strictly. Without it, 32 or the valid choice nearest to it.
        channels_per_group: C/G in the place of batch norms, strictly.
        where: names of submodules to convert in, as in ``model.named_modules()``; None for all. Of a norm in two
            places, one has to be there.

    Returns:
        Every norm (of ``where``) with what became of it.

    Raises:
        TypeError: not a module, or itself a norm, or TorchScript in it.
        ValueError: an unknown ``to`` or ``where``, channels that do not split into the groups asked for, a lazy norm
            that knows no channels yet, a norm with state-dict hooks. The model is what it was then.

    Example:
        >>> print(convert_norm(nn.Sequential(nn.Conv2d(3, 48, 3), nn.BatchNorm2d(48))))
        1 of 1 norms converted to FusedGN
          1  BN  -> FusedGN  1
        groups rounded to the nearest valid choice:
          1  48 channels: 24 groups, since 32 does not divide 48  1
    """
    _check_arguments(model, to, num_groups, channels_per_group)
    norms = _norms_in(model, where)
    left = {norm.module: why_left(norm, to) for norm in norms}
    _check_norms([norm for norm in norms if not left[norm.module]], num_groups, channels_per_group)
    places = _places(model)
    conversions = []
    for norm in norms:
        conversion = NormConversion(norm.name, norm.kind, norm.num_channels, left_because=left[norm.module])
        if not conversion.left_because:
            groups, rounded_from = _groups(norm, num_groups, channels_per_group)
            conversion = replace(conversion, num_groups=groups, rounded_from=rounded_from)
            new = group_norm_for(norm, to, groups)
            if _is_frozen(norm.module) and _surroundings_train(norm.module, places):
                new.weight.requires_grad = new.bias.requires_grad = True
            for parent, name in places[norm.module]:
                _put(parent, name, new)
        conversions.append(conversion)
    return ConversionReport(to, tuple(conversions))


def _check_arguments(model: nn.Module, to: str, num_groups: int | None, channels_per_group: int | None) -> None:
    check_model(model)
    if norm_kind(model) is not None:
        raise TypeError(
            f"model is itself a norm, {type(model).__name__}, and cannot be replaced in place; convert the module that "
            "holds it, or nn.Sequential(norm)."
        )
    if to not in TARGETS:
        raise ValueError(f"to must be one of {TARGETS}, got {to!r}.")
    given = {"num_groups": num_groups, "channels_per_group": channels_per_group}
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a positive integer, got {value!r}.")
    if len(given) > 1:
        raise ValueError(f"num_groups and channels_per_group exclude each other, got {given}; give one of them.")


def _norms_in(model: nn.Module, where: str | Iterable[str] | None) -> list[NormLayer]:
    norms = norm_layers(model)
    if where is None:
        return list(norms)
    prefixes = [where] if isinstance(where, str) else list(where)
    inside: set[nn.Module] = set()
    for prefix in prefixes:
        try:
            inside.update(model.get_submodule(prefix).modules())
        except AttributeError:
            children = ", ".join(name for name, _ in model.named_children())
            raise ValueError(
                f"where: {type(model).__name__} has no module {prefix!r}; it holds {children}, each with "
                "the modules that its named_modules() tell."
            ) from None
    return [norm for norm in norms if norm.module in inside]


def _check_norms(norms: list[NormLayer], num_groups: int | None, channels_per_group: int | None) -> None:
    """Raise a ValueError for norms that cannot be converted as asked for."""
    lazy = [norm.name for norm in norms if not norm.num_channels]
    if lazy:
        raise ValueError(f"{first(lazy)}: lazy norms that know no channels yet; run the model once before.")
    hooked = [norm.name for norm in norms if has_state_dict_hooks(norm.module)]
    if hooked:
        raise ValueError(
            f"{first(hooked)}: hooks on how the norm is saved or loaded cannot be carried over to another; remove "
            "them before, and register them anew after."
        )
    wanted = num_groups or channels_per_group
    if wanted is None:
        return
    name = "num_groups" if num_groups else "channels_per_group"
    indivisible: dict[int, list[str]] = {}
    for norm in norms:
        if is_batch_norm(norm.module) and norm.num_channels % wanted:
            indivisible.setdefault(norm.num_channels, []).append(norm.name)
    if indivisible:
        layers = "; ".join(
            f"{', '.join(names)}: {channels} channels, {name} in {divisors(channels)}"
            for channels, names in sorted(indivisible.items())
        )
        raise ValueError(
            f"{name}={wanted} does not divide the channels of every batch norm. These have other choices: {layers}. "
            f"Without num_groups and channels_per_group each gets {_DEFAULT_GROUPS} groups or the nearest valid choice."
        )


def _groups(norm: NormLayer, num_groups: int | None, channels_per_group: int | None) -> tuple[int, int | None]:
    """Return the groups, and what they are rounded from if they are."""
    if norm.num_groups is not None:
        return norm.num_groups, None
    if num_groups is not None:
        return num_groups, None
    if channels_per_group is not None:
        return norm.num_channels // channels_per_group, None
    groups = nearest_groups(norm.num_channels, _DEFAULT_GROUPS)
    return groups, None if groups == _DEFAULT_GROUPS else _DEFAULT_GROUPS


_Places = dict[nn.Module, list[tuple[nn.Module, str]]]


def _places(model: nn.Module) -> _Places:
    """Return for each module below ``model`` the modules that hold it and its names there."""
    places: _Places = {}
    for parent in model.modules():
        for name, child in parent._modules.items():
            if child is not None:
                places.setdefault(child, []).append((parent, name))
    return places


def _put(parent: nn.Module, name: str, norm: nn.Module) -> None:
    parent._modules[name] = norm
    # Mmcv's ConvModule in evaluation, if so switched: the running statistics folded into the convolution.
    for switch in ("efficient_conv_bn_eval_forward", "fast_conv_bn_eval_forward"):
        if getattr(parent, switch, None) is not None:
            setattr(parent, switch, None)


def _is_frozen(module: nn.Module) -> bool:
    affine = getattr(module, "weight", None) is not None
    return affine and is_batch_norm(module) and not any(p.requires_grad for p in module.parameters(recurse=False))


def _surroundings_train(module: nn.Module, places: _Places) -> bool:
    """Return whether the layer before trains, else the one after, else what holds them, and so on outwards."""
    while module in places:
        parent, name = places[module][0]
        names = list(parent._modules)
        i = names.index(name)
        for sibling in [*names[:i][::-1], *names[i + 1 :]]:
            around = _parameters(parent._modules[sibling])
            if around:
                return any(p.requires_grad for p in around)
        own = list(parent.parameters(recurse=False))
        if own:
            return any(p.requires_grad for p in own)
        module = parent
    return False


def _parameters(module: nn.Module | None) -> list[nn.Parameter]:
    """Return the parameters of all but the norms."""
    modules = () if module is None else module.modules()
    return [p for m in modules if norm_kind(m) is None for p in m.parameters(recurse=False)]


def _counted(kinds: dict[tuple[str, ...], list[str]]) -> list[str]:
    return aligned((f"  {len(names)}", *kind, first(names)) for kind, names in kinds.items())
