"""A config's model, built."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from mmengine.config import Config
from mmengine.model import is_model_wrapper
from mmengine.registry import MODELS, init_default_scope
from torch import nn

_NORM_TYPES = ("FusedGN", "GN", "BN", "SyncBN", "FrozenBN", "LN", "IN")


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model in a wrapper such as DDP's, or the model itself."""
    return model.module if is_model_wrapper(model) else model  # type: ignore[return-value]


def build_model(cfg: Config) -> nn.Module:
    """Build a config's model, with random weights.

    Raises:
        ValueError: there is no ``model``, a norm in it that no registry knows, or it cannot be built.
    """
    if not cfg.get("model"):
        raise ValueError(f"config {cfg.filename} has no model: it is part of another config, or not one for training.")
    init_default_scope(cfg.get("default_scope") or "mmdet")
    check_norm_types(cfg.model)
    try:
        model: nn.Module = MODELS.build(cfg.model)
    # What a constructor raises is up to its author.
    except Exception as error:
        raise ValueError(f"the model of {cfg.filename} cannot be built: {error}") from error
    return model


def check_norm_types(model: Any) -> None:
    """Check that there are the norms that a model's config asks for by name.

    Args:
        model: the config; parts whose type names its registry (``mmpretrain.ConvNeXt``) may have norms of that, and
            are left out.

    Raises:
        ValueError: a norm that no registry knows.
    """
    for place, norm in _norm_types(model, "model"):
        if not _is_registered(norm):
            known = ", ".join(filter(_is_registered, _NORM_TYPES))
            raise ValueError(f"{place}: unknown norm {norm!r}; known are {known}.")


def _is_registered(name: str) -> bool:
    try:
        return MODELS.get(name) is not None
    # Of '', say, or of a module's that there is not.
    except Exception:
        return False


def takes(cfg: Config, part: Any, argument: str) -> bool:
    """Return whether the constructor of a model's part has an argument, or a base's that it passes ``**kwargs`` on to.

    Args:
        cfg: the config that the part is of; tells the scope.
        part: the part's own config.
        argument: by name.
    """
    init_default_scope(cfg.get("default_scope") or "mmdet")
    # As building does: a bare name is first of all the default scope's.
    with MODELS.switch_scope_and_registry(None) as registry:
        kind = registry.get(part.type) if isinstance(part.type, str) else part.type
    for base in kind.__mro__[:-1] if kind else ():
        init: Callable[..., Any] | None = base.__dict__.get("__init__")
        if init is None:
            continue
        parameters = inspect.signature(init).parameters.values()
        if any(p.name == argument for p in parameters):
            return True
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return False


def _norm_types(cfg: Any, place: str) -> Iterator[tuple[str, str]]:
    """Yield where norms are asked for by name, and the names."""
    if isinstance(cfg, (list, tuple)):
        for i, value in enumerate(cfg):
            yield from _norm_types(value, f"{place}.{i}")
    elif isinstance(cfg, dict):
        if place.endswith("norm_cfg") and isinstance(cfg.get("type"), str):
            yield place, cfg["type"]
        elif "." in str(cfg.get("type", "")):
            return
        for key, value in cfg.items():
            yield from _norm_types(value, f"{place}.{key}")
