"""What a swap changed, for a person: setting by setting, and norm by norm."""

import difflib
import re
from collections import Counter
from typing import Any

from mmengine.config import ConfigDict

from mmgn.engine.norm_state import NormRow, norm_rows
from mmgn.engine.norm_swap.decay import DEFAULT_CONSTRUCTOR, ruling_key
from mmgn.engine.norm_swap.diff import flat
from mmgn.engine.norm_swap.swap import Swap
from mmgn.models.listing import aligned, first, span

Rows = tuple[NormRow, ...]

_HEAD = ("layers", "where", "old norm", "new norm", "channels", "trains", "decays")
# As mmcv names norms by their kind: bn1 becomes gn1, a ConvModule's bn its gn.
_NAMED_BY_KIND = re.compile(r"(?:^|(?<=\.))(?:bn|gn)(?=\d*(?:\.|$))")


def settings_changed(swap: Swap) -> str:
    """Return the settings of the model and its training that differ, in lines of ``-`` and ``+``."""
    keys = ("model", "optim_wrapper", "load_from", "custom_hooks", "custom_imports")
    old, new = (
        [line for key in keys if key in cfg for line in flat(cfg[key], key)] for cfg in (swap.source.cfg, swap.cfg)
    )
    changed = difflib.unified_diff(old, new, n=0, lineterm="")
    return "\n".join(line for line in changed if not line.startswith(("---", "+++", "@@")))


def norms_changed(before: Rows, after: Rows) -> str:
    """Return a table of the norms: what they were, are, and whether they train and decay; one line for many alike.

    Args:
        before: of :func:`swapped_rows`.
        after: of the same.
    """
    lines: dict[tuple[str, ...], list[NormRow]] = {}
    gone = {_kindless(row.name): row for row in before}
    for row in after:
        old = gone.pop(_kindless(row.name), None)
        key = (_part(row.name), _norm(old), _norm(row), _yes(row.trains), _yes(row.decays))
        lines.setdefault(key, []).append(row)
    for row in gone.values():
        lines.setdefault((_part(row.name), _norm(row), "none", "-", "-"), []).append(row)
    table = [
        (str(len(rows)), part, old, new, span(row.num_channels for row in rows), trains, decays)
        for (part, old, new, trains, decays), rows in lines.items()
    ]
    return "\n".join(aligned([_HEAD, *table]))


def decay_remarks(swap: Swap, before: Rows, after: Rows) -> list[str]:
    """Return what there is to say of the norms that lose their decay though they stay, and of those that keep it.

    Args:
        swap: what :func:`swapped_rows` was asked of.
        before: its answer.
        after: its answer too.
    """
    said = []
    old = {(row.name, row.kind): row for row in before}
    ended = [row for row in after if row.decays is False and (row.name, row.kind) in old]
    ended = [row for row in ended if row.trains and old[row.name, row.kind].decays]
    if ended:
        said.append(f"norm_decay_mult=0 also ends the decay of {_counted(ended)}")
    decayed = [row for row in after if row.num_groups is not None and row.decays]
    if decayed:
        said.append(f"optim_wrapper: {_why_decayed(swap.cfg['optim_wrapper'], decayed)}: decays {_counted(decayed)}")
    return said


def swapped_rows(swap: Swap) -> tuple[Rows, Rows]:
    """Return the norms before and after; without their decay if the config's optimizer could not be built before.

    Raises:
        ValueError: the optimizer cannot be built, but could be before the swap.
    """
    try:
        before = norm_rows(swap.before, ConfigDict(swap.source.cfg))
    except ValueError:
        return norm_rows(swap.before), norm_rows(swap.after)
    return before, norm_rows(swap.after, ConfigDict(swap.cfg))


def _why_decayed(wrapper: dict[str, Any], rows: list[NormRow]) -> str:
    constructor = wrapper.get("constructor", DEFAULT_CONSTRUCTOR)
    if constructor != DEFAULT_CONSTRUCTOR:
        return f"{constructor} need not heed norm_decay_mult=0"
    keys = (wrapper.get("paramwise_cfg") or {}).get("custom_keys") or {}
    ruling = {key for row in rows for name in ("weight", "bias") if (key := ruling_key(keys, f"{row.name}.{name}"))}
    decaying = ", ".join(repr(key) for key in sorted(ruling) if keys[key].get("decay_mult", 1.0) != 0)
    if decaying:
        return f"custom_keys (paramwise_cfg) has {decaying}, which puts norm_decay_mult=0 out of force"
    return "the optimizer has a weight_decay by default"


def _counted(rows: list[NormRow]) -> str:
    counts = ", ".join(f"{count} {kind}" for kind, count in Counter(row.kind for row in rows).items())
    return f"{counts} ({first([row.name for row in rows])})"


def _kindless(name: str) -> str:
    return _NAMED_BY_KIND.sub("norm", name)


def _part(name: str) -> str:
    words = name.split(".")
    return ".".join(words[: 2 if words[0] in ("roi_head", "detector", "student", "teacher") else 1])


def _norm(row: NormRow | None) -> str:
    if row is None:
        return "none"
    return row.kind if row.num_groups is None else f"{row.kind}({row.num_groups})"


def _yes(state: bool | None) -> str:
    return {None: "-", False: "no", True: "yes"}[state]
