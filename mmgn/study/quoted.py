"""The paper's ImageNet figures: quoted, never measured here, and kept apart from what was."""

import json
from functools import cache
from pathlib import Path
from typing import Any

#: What stands over every table and picture of them.
MARK = "quoted, ImageNet, ResNet-50"
#: Images per GPU of :func:`norms` and :func:`groups`.
NORMS_BATCH_SIZE = 32


def source(table: str) -> str:
    """Return where the figures of ``'norms'``, ``'batch_sizes'`` or ``'groups'`` are from."""
    return f"{_paper()['source']}, {_paper()[table]['place']}: {_paper()['setup']}"


def norms() -> dict[str, float]:
    """Return the error of each norm at :data:`NORMS_BATCH_SIZE`."""
    return dict(_paper()["norms"]["top1_error"])


def batch_sizes() -> dict[str, dict[int, float]]:
    """Return the error of BN and GN by images per GPU."""
    return _by_number("batch_sizes")


def error(norm: str, batch_size: int) -> float | None:
    """Return the error of a norm at so many images per GPU; None where the paper has none."""
    return batch_sizes().get(norm, {}).get(batch_size, norms().get(norm) if batch_size == NORMS_BATCH_SIZE else None)


def groups() -> dict[str, dict[int, float]]:
    """Return the error of GN by ``num_groups``, where 1 is LN, and by ``channels_per_group``, where 1 is IN."""
    return _by_number("groups")


def _by_number(table: str) -> dict[str, dict[int, float]]:
    found = _paper()[table]["top1_error"]
    return {line: {int(number): error for number, error in errors.items()} for line, errors in found.items()}


@cache
def _paper() -> dict[str, Any]:
    return json.loads(Path(__file__).with_name("quoted.json").read_text(encoding="utf-8"))
