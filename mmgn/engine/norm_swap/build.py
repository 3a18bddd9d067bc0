"""The model of a swapped config: which layers its norms came to, and which of them no config reaches."""

import copy
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from mmgn.engine.norm_swap.placement import Keys, Place, at
from mmgn.engine.norm_swap.request import DEFAULT_GROUPS, TARGETS, SwapRequest
from mmgn.layers import FusedGN
from mmgn.layers.group_norm import nearest_groups
from mmgn.models.norms import BATCH_NORMS, NormLayer, norm_layers
from mmgn.ops.functional import divisors


@dataclass
class Trace:
    """What the places of a config came to in the built model.

    Attributes:
        channels: of the layers of each place.
        model: the model; of no use but to look at.
    """

    channels: dict[Keys, list[int]] = field(default_factory=dict)
    model: nn.Module = field(default_factory=nn.Identity)


def build(model: dict[str, Any], scope: str = "mmdet") -> Any:
    """Build a model's config, which stays as it is; the weights are random.

    Raises:
        Exception: whatever the model's constructor raises.
    """
    from mmdet.registry import MODELS
    from mmengine.config import ConfigDict
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope(scope):
        return MODELS.build(ConfigDict(copy.deepcopy(model)))


def trace(model: dict[str, Any], places: list[Place], scope: str = "mmdet") -> Trace:
    """Build a swapped config with a class of its own for each place, so that each layer tells where it came from."""
    found = Trace()
    traced = copy.deepcopy(model)
    for place in places:
        at(traced, place.path)["type"] = _recorder(found.channels.setdefault(place.path, []))
    found.model = build(traced, scope)
    return found


def fit_groups(model: dict[str, Any], places: list[Place], found: Trace, request: SwapRequest) -> list[str]:
    """Let the places whose groups do not divide their channels round them, in the config; return what there is to say.

    Raises:
        ValueError: the groups were asked for, or the norm cannot round.
    """
    remarks: dict[str, list[str]] = {}
    wrong: dict[tuple[int, str, int], list[str]] = {}
    for place in places:
        node = at(model, place.path)
        name = "channels_per_group" if "channels_per_group" in node else "num_groups"
        groups = node.get(name, DEFAULT_GROUPS)
        for channels in sorted(set(found.channels[place.path])):
            if channels % groups:
                wrong.setdefault((channels, name, groups), []).append(dotted(place.path))
                if request.to == "FusedGN":
                    text = f"rounded: {channels} channels: {nearest_groups(channels, groups)} groups"
                    remarks.setdefault(text, []).append(dotted(place.path))
                    node["round_groups"] = True
            elif name == "num_groups" and channels == groups and not request.explicit:
                text = f"one channel a group, which is instance norm: {channels} channels"
                remarks.setdefault(text, []).append(dotted(place.path))
    if wrong and (request.explicit or request.to != "FusedGN"):
        raise ValueError(_indivisible(wrong, request))
    return [f"{text} ({', '.join(names)})" for text, names in remarks.items()]


def out_of_reach(model: nn.Module, request: SwapRequest) -> tuple[list[NormLayer], list[NormLayer]]:
    """Return the norms of a built model that its config did not reach: those to convert, and those to be left."""
    kinds = {*BATCH_NORMS, *TARGETS} - {request.to}
    layers = [layer for layer in norm_layers(model) if layer.kind in kinds and not hasattr(layer.module, "recorded")]
    wanted = [layer for layer in layers if request.wants(layer.name.split("."))]
    names = {layer.name for layer in wanted}
    return wanted, [layer for layer in layers if layer.name not in names]


def submodules(wanted: list[NormLayer], others: list[NormLayer]) -> list[str]:
    """Return the shortest names of submodules that hold all the wanted norms and none of the others."""
    taken = {prefix for layer in others for prefix in _prefixes(layer.name)}
    names = [next(prefix for prefix in _prefixes(layer.name) if prefix not in taken) for layer in wanted]
    return list(dict.fromkeys(names))


def dotted(path: Keys) -> str:
    """Return a path as --cfg-options spells it, below ``model``."""
    return ".".join(map(str, path))


def _prefixes(name: str) -> list[str]:
    words = name.split(".")
    return [".".join(words[: i + 1]) for i in range(len(words))]


def _recorder(channels: list[int]) -> type[nn.Module]:
    class Recorder(FusedGN):
        recorded = True

        def __init__(self, num_channels: int, *args: Any, **kwargs: Any) -> None:
            super().__init__(num_channels, *args, **{**kwargs, "round_groups": True})
            channels.append(num_channels)

    return Recorder


def _indivisible(wrong: dict[tuple[int, str, int], list[str]], request: SwapRequest) -> str:
    asked = " and ".join(dict.fromkeys(f"{name}={value}" for _, name, value in wrong))
    lines = [
        f"  {channels} channels in {', '.join(names)}: {name} in {divisors(channels)}"
        for (channels, name, _), names in sorted(wrong.items())
    ]
    way_out = (
        "Choose one that divides them all, or leave the groups out: then 32, and where 32 does not divide the channels "
        "the nearest that does."
        if request.explicit
        else "Choose num_groups, or FusedGN, which can round."
    )
    return f"{asked} does not divide the channels of these norms:\n" + "\n".join(lines) + f"\n{way_out}"
