"""swap_norm: from one config to the one that has group norm, as a small difference that builds on its own."""

import copy
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import nn

from mmgn.engine.model import check_norm_types
from mmgn.engine.norm_swap.build import build, fit_groups, out_of_reach, submodules, trace
from mmgn.engine.norm_swap.diff import config_text, difference
from mmgn.engine.norm_swap.placement import Keys, Place, four_conv_heads, place_norms, take_back, typed
from mmgn.engine.norm_swap.remarks import conversion_remarks, remarks
from mmgn.engine.norm_swap.request import PARTS, TARGETS, SwapRequest
from mmgn.engine.norm_swap.settings import train_settings
from mmgn.engine.norm_swap.source import Source
from mmgn.engine.norm_swap.weights import start_backbones
from mmgn.models.converted import NORM_CONVERTED
from mmgn.models.norms import BATCH_NORMS, NormLayer, norm_layers


class NothingToSwapError(ValueError):
    """A config whose model has no norm that would change."""


@dataclass(frozen=True)
class Swap:
    """A swapped config.

    Attributes:
        source: the config that was swapped.
        cfg: what the swapped config says, all bases merged.
        text: its file.
        said: what a person should know of it, a line each.
        before: the model as it was, with random weights.
        after: the model as it is, with random weights.
        out: the file that its text is for.
    """

    source: Source
    cfg: dict[str, Any]
    text: str
    said: tuple[str, ...]
    before: nn.Module
    after: nn.Module
    out: Path

    def write(self) -> None:
        """Write the file, all or nothing.

        Raises:
            OSError: it cannot be written.
        """
        draft = _draft(self.out)
        try:
            draft.write_text(self.text)
            draft.replace(self.out)
        finally:
            draft.unlink(missing_ok=True)


def swap_norm(source: Source, request: SwapRequest, out: Path) -> Swap:
    """Swap the norms of a config, read it back from the file that it will be, and build its model.

    Args:
        source: the config.
        request: what to swap to, and where.
        out: the file it is for, not written yet; its folder must exist.

    Raises:
        NothingToSwapError: the model has no such norm.
        ValueError: the model does not build, has a norm that no registry knows, channels that the groups asked for do
            not divide, or a FusedGN that torch's own cannot stand for.
        OSError: no file can be written there.
    """
    if out.resolve() == source.path.resolve():
        raise ValueError(f"{str(out)!r} is the config itself, which the swapped one needs as its _base_; name another.")
    check_norm_types(source.cfg["model"])
    try:
        before = build(source.cfg["model"], source.scope)
    # Whatever a constructor raises.
    except Exception as error:
        raise ValueError(
            f"the model of {str(source.path)!r} does not build here even before its norms are swapped: "
            f"{type(error).__name__}: {error}"
        ) from error
    cfg, said = _swapped(source, request, before)
    changes = difference(source.cfg, cfg)
    base = source.base_for(out)
    if base.startswith("mmdet::") and source.scope != "mmdet":
        # Of what comes by this name mmengine looks for the types in mmdet's registry.
        changes["model"]["_scope_"] = source.scope
    inherited = {"custom_hooks": source.cfg.get("custom_hooks")}
    # What the base calls norm_cfg is merged with ours, which only goes if it is a dict too.
    shared = request.norm_cfg if isinstance(source.cfg.get("norm_cfg", {}), dict) else {}
    text = config_text(base, changes, shared, inherited)
    after = _read_back(text, cfg, source.scope, out)
    return Swap(source, cfg, text, tuple(said), before, after, out)


def _swapped(source: Source, request: SwapRequest, before: nn.Module) -> tuple[dict[str, Any], list[str]]:
    """Return the swapped config, and what there is to say of it."""
    kinds = Counter(layer.kind for layer in norm_layers(before))
    if not kinds:
        raise NothingToSwapError(f"the model of {str(source.path)!r} has no norm, so there is none to swap.")
    cfg = copy.deepcopy(source.cfg)
    model = cfg["model"]
    heads = four_conv_heads(model, request)
    places = place_norms(model, request)
    found = trace(model, places, source.scope)
    # A class may take a norm_cfg and make nothing of it.
    idle = [place for place in places if place.old is None and not found.channels[place.path]]
    take_back(model, idle)
    places = [place for place in places if place not in idle]
    rounded = fit_groups(model, places, found, request)
    wanted, others = out_of_reach(found.model, request)
    if not places and not wanted:
        there = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        raise NothingToSwapError(
            f"{str(source.path)!r} has nothing to swap to {request.to} in {', '.join(request.where)}; "
            f"the norms of its model: {there}."
        )
    if wanted:
        cfg["model"] = model = _converted(model, wanted, others, request)
    said = [*remarks(model, heads, places, request), *rounded, *conversion_remarks(wanted, request)]
    said += start_backbones(model, _backbones_with_batch_norm(model, places, wanted), request)
    new = [layer.name for layer in norm_layers(found.model) if hasattr(layer.module, "recorded")]
    # A shared module's count by each of its names, as mmengine's do.
    parameters = [name for name, _ in found.model.named_parameters(remove_duplicate=False)]
    said += train_settings(cfg, request, [*new, *(layer.name for layer in wanted)], parameters)
    return cfg, said


def _converted(
    model: dict[str, Any], wanted: list[NormLayer], others: list[NormLayer], request: SwapRequest
) -> dict[str, Any]:
    convert: dict[str, Any] = {"to": request.to}
    if request.explicit:
        convert.update(request.groups)
    if others:
        convert["where"] = submodules(wanted, others)
    rest = {key: value for key, value in model.items() if key != "type"}
    detector = model["type"]
    if detector == NORM_CONVERTED:
        earlier = {"to": TARGETS[0], **rest.pop("convert")}
        if earlier["to"] != request.to and others:
            raise ValueError(
                f"model.convert converts to {earlier['to']}, which {request.to} in {', '.join(request.where)} alone "
                f"could undo elsewhere; swap all parts: {', '.join(PARTS)}."
            )
        # The parts that an earlier swap converted stay so, and so do their groups.
        where = earlier.pop("where", None) or []
        if others:
            convert["where"] += [name for name in where if name not in convert["where"]]
        elif earlier["to"] != request.to and not any(layer.kind in BATCH_NORMS for layer in wanted):
            convert = {**earlier, "to": request.to}
        detector = rest.pop("detector")
    return {"type": NORM_CONVERTED, "detector": detector, "convert": convert, **rest}


def _backbones_with_batch_norm(model: dict[str, Any], places: list[Place], wanted: list[NormLayer]) -> set[Keys]:
    words = {word for layer in wanted if layer.kind in BATCH_NORMS for word in layer.name.split(".")}
    return {
        path
        for path, _ in typed(model)
        if path
        and str(path[-1]).endswith("backbone")
        and (path[-1] in words or any(p.kind == "BN" and p.path[: len(path)] == path for p in places))
    }


def _read_back(text: str, cfg: dict[str, Any], scope: str, out: Path) -> nn.Module:
    """Return the model of the file, if the file says what it should."""
    draft = _draft(out)
    try:
        draft.write_text(text)
        read = Config.fromfile(draft).to_dict()
    finally:
        draft.unlink(missing_ok=True)
    wrong = [key for key in cfg if _plain(read.get(key)) != _plain(cfg[key]) and key != "norm_cfg"]
    if wrong:
        keys = ", ".join(wrong)
        raise ValueError(f"a file with a _base_ does not give back {keys} of the swapped config:\n{text:.4000}")
    return build(read["model"], scope)


def _draft(out: Path) -> Path:
    # In the same folder, as a _base_ may be relative to it.
    return out.with_name(f".{out.stem}.{os.getpid()}.py")


def _plain(node: Any) -> Any:
    """Leave out the scopes that mmengine notes in what it takes over from a base."""
    if isinstance(node, dict):
        return {key: _plain(value) for key, value in node.items() if key != "_scope_"}
    if isinstance(node, (list, tuple)):
        return type(node)(_plain(value) for value in node)
    return node
