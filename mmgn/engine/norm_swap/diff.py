"""The difference of two configs, as a config with a ``_base_``."""

import keyword
import math
import re
from collections.abc import Iterator
from typing import Any

# What mmdet formats its configs with.
_YAPF_STYLE = {
    "based_on_style": "pep8",
    "blank_line_before_nested_class_or_def": True,
    "split_before_expression_after_opening_paren": True,
}


def difference(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return the smallest config that makes ``new`` of ``old`` when it is merged into it, as mmengine merges.

    Lists are whole where they differ; a dict that loses a key, or takes the place of what is no dict, has
    ``_delete_=True``.

    Raises:
        ValueError: the whole loses a key, for which there is no way to say it.
    """
    gone = old.keys() - new.keys()
    if gone:
        raise ValueError(f"a config cannot take away what its _base_ has at the top: {', '.join(sorted(gone))}.")
    return {key: _changed(old, key, value) for key, value in new.items() if key not in old or old[key] != value}


def _changed(old: dict[str, Any], key: str, value: Any) -> Any:
    if not isinstance(value, dict) or key not in old:
        return value
    before = old[key]
    if not isinstance(before, dict) or before.keys() - value.keys():
        return {**value, "_delete_": True}
    return difference(before, value)


def config_text(base: str, changes: dict[str, Any], norm_cfg: dict[str, Any], inherited: dict[str, Any]) -> str:
    """Return the config file that has the changes, as mmdet writes its own.

    Args:
        base: ``_base_``.
        changes: of :func:`difference`.
        norm_cfg: what gets a variable of its own; none if empty.
        inherited: lists of the base that can be written ``*_base_.name``, by name.
    """
    from yapf.yapflib.yapf_api import FormatCode  # type: ignore[import-untyped]

    model = {"model": changes["model"]} if "model" in changes else {}
    rest = {key: value for key, value in changes.items() if key != "model"}
    body = [f"{key} = {_top(key, value, norm_cfg, inherited)}" for key, value in {**model, **rest}.items()]
    head = [f"_base_ = {base!r}\n"]
    # The variable, not the key.
    if any(re.search(r"\bnorm_cfg\b(?!=)", line) for line in body):
        head.append(f"norm_cfg = {_source(norm_cfg, {})}")
    # norm_cfg belongs to the model; what follows is set apart.
    text = "\n".join([*head, "\n\n".join(body)]) + "\n"
    return FormatCode(text, style_config=_YAPF_STYLE)[0]


def flat(node: Any, name: str) -> Iterator[str]:
    """Yield a config's settings, one a line, for a comparison by lines."""
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from flat(value, f"{name}.{key}")
    elif isinstance(node, (list, tuple)) and any(isinstance(child, dict) for child in node):
        for index, child in enumerate(node):
            yield from flat(child, f"{name}.{index}")
    else:
        yield f"{name} = {node!r}"


def _top(key: str, value: Any, norm_cfg: dict[str, Any], inherited: dict[str, Any]) -> str:
    base = inherited.get(key)
    if base and isinstance(value, list) and value[: len(base)] == base:
        added = ", ".join(_source(item, norm_cfg) for item in value[len(base) :])
        return f"[*_base_.{key}, {added}]"
    return _source(value, norm_cfg)


def _source(value: Any, norm_cfg: dict[str, Any]) -> str:
    if isinstance(value, dict):
        if norm_cfg and value == norm_cfg:
            return "norm_cfg"
        items = [(key, _source(child, norm_cfg)) for key, child in value.items()]
        named = all(isinstance(key, str) and key.isidentifier() and not keyword.iskeyword(key) for key in value)
        if named and norm_cfg and norm_cfg.items() <= value.items():
            extra = [f"{key}={child}" for key, child in items if key not in norm_cfg]
            return f"dict(**norm_cfg, {', '.join(extra)})"
        if named:
            return f"dict({', '.join(f'{key}={child}' for key, child in items)})"
        return "{" + ", ".join(f"{key!r}: {child}" for key, child in items) + "}"
    if isinstance(value, (list, tuple)):
        inner = ", ".join(_source(child, norm_cfg) for child in value)
        if isinstance(value, list):
            return f"[{inner}]"
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, float) and not math.isfinite(value):
        return f"float('{value}')"
    if not isinstance(value, (str, bytes, int, float, complex, type(None))):
        raise ValueError(f"a config file has no way to write {value!r}, which stands among settings that change.")
    return repr(value)
