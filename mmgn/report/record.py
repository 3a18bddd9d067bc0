"""run.json, as ``mmgn.engine.RunRecordHook`` writes it: read, and each known field's type checked."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any


def whole(digits: str) -> int | float:
    """Return an integer of JSON, for ``parse_int``; beyond what a float holds exactly, a float, be it infinite."""
    value = int(digits)
    return value if abs(value) < 2**53 else float(digits)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return type(value) is int


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_norms(value: Any) -> bool:
    if not _is_object(value) or not _are_names(value.get("warnings")) or not isinstance(value.get("rows"), list):
        return False
    return all(_is_object(row) and all(map(_is_text, row.values())) for row in value["rows"])


_TEXTS = ("config", "model", "device", "command", "ended", "checkpoint", "ann_file", "img_dir", "results_prefix")
_WHOLES = ("seed", "world_size", "first_iter", "iter", "max_iters", "epoch", "num_images")
_FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys((*_TEXTS, "peak_memory_kind"), ("a text", _is_text)),
    **dict.fromkeys(_WHOLES, ("a whole number", _is_whole)),
    **dict.fromkeys(("seconds", "peak_memory_mb", "ms_per_image"), ("a finite number", _is_number)),
    **dict.fromkeys(("versions", "metrics"), ("an object", _is_object)),
    "speed": ("an object that has includes", lambda value: _is_object(value) and _is_text(value.get("includes", ""))),
    "classes": ("a list of names", _are_names),
    "norms": ("an object of rows and warnings", _is_norms),
}


def read_record(path: Path) -> dict[str, Any]:
    """Read the record of a run's training and evaluation, without the fields that are null.

    Raises:
        ValueError: it is none, or a field is of another type.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"), parse_int=whole)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}); remove it to report without it") from error
    sections = {k: record.get(k, {}) for k in ("train", "evaluation")} if isinstance(record, dict) else {"": None}
    for name, section in sections.items():
        if not isinstance(section, dict):
            raise ValueError(f"{path} is not a record of RunRecordHook; remove it to report without it")
        for key, (what, is_sound) in _FIELDS.items():
            value = section.get(key)
            if value is not None and not is_sound(value):
                raise ValueError(
                    f"{path}: {name}.{key} must be {what}, got {value!r:.80}; remove it to report without it"
                )
        record[name] = {key: value for key, value in section.items() if value is not None}
    return record
