"""What a person should know of where norms went in a swap."""

from collections import Counter
from typing import Any

from mmgn.engine.norm_swap.build import dotted
from mmgn.engine.norm_swap.placement import Keys, Place, defaults, registered_class, typed
from mmgn.engine.norm_swap.request import DEFAULT_GROUPS, SwapRequest, part_of
from mmgn.layers.group_norm import nearest_groups
from mmgn.models.listing import first
from mmgn.models.norms import BATCH_NORMS, NormLayer


def remarks(model: dict[str, Any], heads: list[Keys], places: list[Place], request: SwapRequest) -> list[str]:
    """Return what there is to say of a config's norms, a line each.

    Args:
        model: the swapped model's config.
        heads: box heads that have another form now.
        places: its norms.
        request: which parts were asked for.
    """
    said = []
    if heads:
        said.append(f"box head: Shared2FCBBoxHead has no convolution, now Shared4Conv1FCBBoxHead: {_names(heads)}")
    added = [place.path for place in places if place.kind == "none"]
    if added:
        said.append(f"added, where there was no norm: {_names(added)}")
    unsaid = [place.path for place in places if place.old is None and place.kind != "none"]
    if unsaid:
        said.append(f"written down, was the default of its class: {_names(unsaid)}")
    without = {node["type"] for path, node in typed(model) if request.wants(path) and _is_without(path, node)}
    if without:
        said.append(f"stays as it is, without a norm_cfg: {', '.join(sorted(without))}")
    return said


def conversion_remarks(converted: list[NormLayer], request: SwapRequest) -> list[str]:
    """Return what there is to say of the norms that no ``norm_cfg`` reaches."""
    if not converted:
        return []
    kinds = Counter(layer.kind for layer in converted)
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    said = [f"out of a norm_cfg's reach, converted in the built model: {counts} ({_first(converted)})"]
    by_channels: dict[int, list[NormLayer]] = {}
    for layer in converted:
        if layer.kind in BATCH_NORMS and not request.explicit and layer.num_channels % DEFAULT_GROUPS:
            by_channels.setdefault(layer.num_channels, []).append(layer)
    for channels, layers in sorted(by_channels.items()):
        groups = nearest_groups(channels, DEFAULT_GROUPS)
        said.append(f"rounded: {channels} channels: {groups} groups ({_first(layers)})")
    return said


def _names(paths: list[Keys]) -> str:
    return ", ".join(dotted(path).removesuffix(".norm_cfg") for path in paths)


def _first(layers: list[NormLayer]) -> str:
    return first([layer.name for layer in layers])


def _is_without(path: Keys, node: dict[str, Any]) -> bool:
    """Return whether a neck or head has no norm, though it takes one; the paper's RPN has none."""
    kind = str(node["type"])
    if not path or part_of(path) == "backbone" or "rpn" in f"{path[-1]} {kind}".lower():
        return False
    cls = registered_class(kind)
    settings = {**(defaults(cls) if cls else {}), **node}
    takes_one = "norm_cfg" in settings or kind.endswith(("BBoxHead", "MaskHead"))
    return takes_one and settings.get("norm_cfg") is None and not _norm_within(node)


def _norm_within(node: Any) -> bool:
    if isinstance(node, dict):
        return any((str(key).endswith("norm_cfg") and child) or _norm_within(child) for key, child in node.items())
    return isinstance(node, (list, tuple)) and any(map(_norm_within, node))
