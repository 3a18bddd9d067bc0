"""Configs of small detectors with norms anywhere: what the swap tool writes is what was asked for, or it says why not.

Configs are code, so they are made from data: a corpus' file is JSON of a config's settings and of the ``request``.
"""

import keyword
import logging
import warnings
from pathlib import Path
from random import Random
from typing import Any

from mmengine.config import Config

import mmgn  # noqa: F401  # before mmdet: it serves mmcv's ops
from fuzzing import trees
from mmgn.engine.norm_swap import PARTS, TARGETS, SwapRequest, read_source, swap_norm
from mmgn.engine.norm_swap.build import build
from mmgn.engine.norm_swap.swap import NothingToSwapError
from mmgn.models.norms import BATCH_NORMS, norm_layers

# More channels, layers or levels make a model that takes long to build, no other one.
_MOST = 256
_NORMS: tuple[Any, ...] = (
    *({"type": kind} for kind in ("BN", "SyncBN", "LN", "IN", "GN", "FusedGN", "BN1d", "BN2d", "nothing")),
    *({"type": "BN", "requires_grad": False}, {"type": "BN", "eps": 1e-3, "momentum": 0.01}),
    *({"type": "GN", "num_groups": 4}, {"type": "FusedGN", "num_groups": 2}, {"num_groups": 4}, "BN", None),
    *({"type": "FusedGN", **more} for more in ({"channels_per_group": 4}, {"num_groups": 5, "round_groups": True})),
    {"type": "FusedGN", "num_groups": 2, "activation": "relu"},
)
_VALUES = (*trees.VALUES, *3 * _NORMS, *PARTS, *TARGETS, ["neck"], ["neck", "heads"], "norm_cfg", "_delete_", "_base_")


def fresh(rng: Random) -> bytes:
    """Return a config of a small detector, and what to swap in it."""
    norm = lambda: rng.choice(_NORMS[:13])  # noqa: E731
    backbone = {"type": "ResNet", "depth": 18, "base_channels": 8, "norm_cfg": norm(), "frozen_stages": 1}
    neck = {"type": "FPN", "in_channels": [8, 16, 32, 64], "out_channels": 8, "num_outs": 5, "norm_cfg": norm()}
    anchors = {"type": "AnchorGenerator", "scales": [8], "ratios": [1.0], "strides": [4, 8, 16, 32, 64]}
    head = {"in_channels": 8, "feat_channels": 8, "num_classes": 2}
    heads: tuple[dict[str, Any], ...] = (
        {"type": "RetinaHead", "stacked_convs": 1, "anchor_generator": anchors, "norm_cfg": norm()},
        {"type": "FCOSHead", "stacked_convs": 1, "strides": [4, 8, 16, 32, 64]},
        {"type": "ATSSHead", "stacked_convs": 1, "anchor_generator": anchors},
        {"type": "FoveaHead", "stacked_convs": 1},
    )
    chosen = rng.choice(heads)
    kinds = {"RetinaHead": "RetinaNet", "FCOSHead": "FCOS", "ATSSHead": "ATSS", "FoveaHead": "FOVEA"}
    model = {"type": kinds[chosen["type"]], "backbone": backbone, "neck": neck, "bbox_head": {**head, **chosen}}
    for part in (backbone, neck, model["bbox_head"]):
        if rng.random() < 0.4:
            part.pop("norm_cfg", None)
    if rng.random() < 0.2:
        model["neck"] = [neck, {"type": "BFP", "in_channels": 8, "num_levels": 5, "norm_cfg": norm()}]
    optimizer = {"optimizer": {"type": "SGD", "lr": 0.1, "weight_decay": 1e-4}, "type": "OptimWrapper"}
    keys = {"backbone": {"lr_mult": 0.1}, "bn": {"decay_mult": 0.0}}
    request = {"to": rng.choice(TARGETS), "where": rng.choice((list(PARTS), ["neck"], ["backbone", "heads"]))}
    request |= rng.choice(({}, {}, {"num_groups": 4}, {"num_groups": 32}, {"channels_per_group": 4}, {"scratch": True}))
    settings = {"model": model, "optim_wrapper": optimizer, "custom_hooks": [{"type": "EMAHook"}], "request": request}
    if rng.random() < 0.3:
        optimizer["paramwise_cfg"] = {"custom_keys": keys}
    return trees.write(settings)


def mutate(data: bytes, rng: Random) -> bytes:
    """Change the settings; never the text, which would be no config any more."""
    return trees.mutate(data, rng, _VALUES, raw=0.0)


def check(data: bytes, folder: Path) -> None:
    """Swap, write, read back; swap once more, which finds nothing to do."""
    settings = trees.parse(data)
    if not isinstance(settings, dict) or not _small(settings):
        return
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _swap(settings, folder)
    finally:
        logging.disable(before)


def _swap(settings: dict[str, Any], folder: Path) -> None:
    asked = settings.pop("request", {})
    base, out = folder / "base.py", folder / "out.py"
    try:
        base.write_text("\n".join(f"{k} = {_literal(v)}" for k, v in settings.items() if _is_name(k)))
        asked = {k: tuple(v) if k == "where" else v for k, v in asked.items() if k in SwapRequest.__dataclass_fields__}
        request = SwapRequest(**asked)
    # Deeper than Python's own code may be; what no command line gives, and what is refused.
    except (RecursionError, TypeError, AttributeError, ValueError):
        return
    try:
        source = read_source(str(base))
        swap = swap_norm(source, request, out)
    except ValueError as error:
        assert 0 < len(str(error)) < 20_000
        return
    assert not out.exists()
    swap.write()
    cfg = Config.fromfile(out).to_dict()
    _compare(swap.before, build(cfg["model"], source.scope), request)
    try:
        again = swap_norm(read_source(str(out)), request, folder / "again.py")
    except NothingToSwapError:
        return
    finally:
        out.unlink()
    raise AssertionError(f"a swapped config has more to swap: {again.text}")


def _compare(before: Any, after: Any, request: SwapRequest) -> None:
    old = {layer.name: layer for layer in norm_layers(before)}
    for layer in norm_layers(after):
        was = old.get(layer.name)
        if request.wants(layer.name.split(".")):
            assert layer.kind not in BATCH_NORMS, f"{layer.name} still is {layer.kind}"
            assert layer.kind == request.to or layer.kind not in TARGETS, f"{layer.name} is {layer.kind}"
            if was is not None and was.kind in BATCH_NORMS and request.num_groups:
                assert layer.num_groups == request.num_groups, f"{layer.name} has {layer.num_groups} groups"
        elif was is not None:
            assert (was.kind, was.num_groups) == (layer.kind, layer.num_groups), f"{layer.name} is {layer.kind}"


def _small(settings: Any) -> bool:
    numbers = (parent[key] for parent, key in trees.nodes(settings))
    return all(abs(number) <= _MOST for number in numbers if isinstance(number, int))


def _is_name(key: str) -> bool:
    return key.isidentifier() and not key.startswith("_") and not keyword.iskeyword(key)


def _literal(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_literal(child)}" for key, child in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_literal, value)) + "]"
    return f"float('{value}')" if isinstance(value, float) else repr(value)
