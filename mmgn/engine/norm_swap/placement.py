"""Where a model's config names a norm, implies one, or has none where mmdet's own group norm configs put one."""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmgn.engine.norm_swap.request import SwapRequest
from mmgn.layers import FusedGN

#: Keys into a model's config, and indices into its lists.
Keys = tuple[Any, ...]

# Without a norm by default; mmdet's configs/gn give one to FPN, box and mask heads, detectron2 and others to RetinaNet,
# mmdet's other configs to RepPoints, FoveaBox, QueryInst, NAS-FPN and Deformable DETR's ChannelMapper.
# Not the RPN: the paper's has none.
NORM_ADDED = {
    *("FPN", "PAFPN", "RFP", "FPN_CARAFE", "FPN_DropBlock", "NASFPN", "NASFCOS_FPN", "ChannelMapper"),
    *("ConvFCBBoxHead", "Shared4Conv1FCBBoxHead"),
    *("FCNMaskHead", "HTCMaskHead", "SCNetMaskHead", "DynamicMaskHead", "FusedSemanticHead", "SCNetSemanticHead"),
    *("RepPointsHead", "FoveaHead", "RetinaSepBNHead"),
    *("RetinaHead", "FreeAnchorRetinaHead", "PISARetinaHead", "FSAFHead", "SABLRetinaHead", "GARetinaHead"),
}


@dataclass(frozen=True)
class Place:
    """One norm in a model's config.

    Attributes:
        path: where.
        old: its ``norm_cfg``; None where there was no norm.
        new: what takes its place.
        kind: 'BN' or 'GN'; 'none' where there was no norm.
    """

    path: Keys
    old: dict[str, Any] | None
    new: dict[str, Any]
    kind: str


def at(node: Any, path: Keys) -> Any:
    """Return what a config has at a path."""
    for key in path:
        node = node[key]
    return node


def place_norms(model: dict[str, Any], request: SwapRequest) -> list[Place]:
    """Swap the norms in a model's config, in place.

    What a ``norm_cfg`` names is swapped, what a class's constructor defaults to is written down, and a few parts that
    have no norm get one.

    Args:
        model: the config.
        request: what to put where.

    Returns:
        The norms, in the config's order.

    Raises:
        ValueError: as :meth:`SwapRequest.in_place_of`; the config is what it was then.
    """
    places: list[Place] = []
    for place in _places(model, request):
        # What lies within a norm goes with it.
        if not any(place.path[: len(outer.path)] == outer.path for outer in places):
            places.append(place)
    for place in places:
        at(model, place.path[:-1])[place.path[-1]] = dict(place.new)
    return places


def take_back(model: dict[str, Any], places: list[Place]) -> None:
    """Take places that the config did not name out of it again, in place."""
    for *inner, key in (place.path for place in places):
        del at(model, tuple(inner))[key]


def four_conv_heads(model: dict[str, Any], request: SwapRequest) -> list[Keys]:
    """Give the box heads without any convolution the form that has a norm, in place; return where they were.

    ``Shared2FCBBoxHead`` becomes ``Shared4Conv1FCBBoxHead``, as in mmdet's ``configs/gn``.
    """
    changed = []
    for path, node in typed(model):
        if node["type"] == "Shared2FCBBoxHead" and request.wants(path):
            node["type"] = "Shared4Conv1FCBBoxHead"
            node.setdefault("conv_out_channels", node.get("in_channels", 256))
            changed.append(path)
    return changed


def typed(node: Any, path: Keys = ()) -> Iterator[tuple[Keys, dict[str, Any]]]:
    """Yield the dicts of a config that have a ``type``, outer ones first."""
    if isinstance(node, dict):
        if "type" in node:
            yield path, node
        for key, child in node.items():
            yield from typed(child, (*path, key))
    elif isinstance(node, (list, tuple)):
        for index, child in enumerate(node):
            yield from typed(child, (*path, index))


def registered_class(kind: Any) -> type | None:
    """Return the class that a config's ``type`` names, None where it names none."""
    from mmdet.registry import MODELS

    if not isinstance(kind, str):
        return kind if inspect.isclass(kind) else None
    try:
        found = MODELS.get(kind)
    # It raises all kinds, RuntimeError where there is no such name.
    except Exception:
        return None
    return found if inspect.isclass(found) else None


def defaults(cls: type) -> dict[str, Any]:
    """Return the defaults of a class's constructor, those of its parents too where it passes ``**kwargs`` on."""
    found: dict[str, Any] = {}
    for parent in cls.__mro__:
        if "__init__" not in vars(parent):
            continue
        parameters = inspect.signature(parent.__init__).parameters.values()  # type: ignore[misc]
        for parameter in parameters:
            if parameter.default is not parameter.empty:
                found.setdefault(parameter.name, parameter.default)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break
    return found


def _places(model: dict[str, Any], request: SwapRequest) -> Iterator[Place]:
    for path, node in list(typed(model)):
        if not request.wants(path):
            continue
        kind = _kind(node, request)
        if kind is not None and path:
            yield Place(path, dict(node), _replacement(node, kind, request, path), kind)
        cls = registered_class(node["type"])
        if cls is None or kind is not None:
            continue
        unsaid = {key: value for key, value in defaults(cls).items() if key not in node}
        for key, default in unsaid.items():
            kind = _kind(default, request)
            if kind is not None:
                yield Place((*path, key), None, _replacement(default, kind, request, (*path, key)), kind)
        # A None that is said is somebody's choice, as in DETR's input projection.
        if cls.__name__ in NORM_ADDED and unsaid.get("norm_cfg", node) is None:
            yield Place((*path, "norm_cfg"), None, request.norm_cfg, "none")


def _kind(node: Any, request: SwapRequest) -> str | None:
    """Return 'BN' or 'GN' for the config of a norm to swap; layer and instance norms stay what they are."""
    if not isinstance(node, dict) or "type" not in node or node["type"] == request.to:
        return None
    cls = registered_class(node["type"])
    if cls is None:
        return None
    # mmcv's synchronised batch norm is a plain module.
    if issubclass(cls, _BatchNorm) or cls.__name__ == "SyncBatchNorm":
        return "BN"
    return "GN" if issubclass(cls, nn.GroupNorm if request.to == "FusedGN" else FusedGN) else None


def _replacement(old: dict[str, Any], kind: str, request: SwapRequest, path: Keys) -> dict[str, Any]:
    if kind == "BN":
        return request.norm_cfg
    try:
        return request.in_place_of(old)
    except ValueError as error:
        raise ValueError(f"{'.'.join(map(str, ('model', *path)))}: {error}") from None
