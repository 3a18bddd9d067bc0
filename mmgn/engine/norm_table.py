"""norm_table: the norms of a model and what training does to them, as a table."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from mmgn.engine.norm_state import NormRow, norm_rows
from mmgn.engine.norm_traps import traps
from mmgn.models.listing import aligned, span

_STATE_HEADS = ("trains", "decays", "statistics")
#: Heads of :meth:`NormTable.folded`.
FOLDED_HEADS = ("layers", "where", "norm", "channels", "groups", *_STATE_HEADS)


@dataclass(frozen=True)
class NormTable:
    """What :func:`norm_table` found; its text is the table.

    Attributes:
        rows: one for each norm, in the order of ``model.named_modules()``.
        warnings: the known traps that model and config are in: what, where and the way out.
    """

    rows: tuple[NormRow, ...]
    warnings: tuple[str, ...] = ()

    def text(self, full: bool = False) -> str:
        """Return the table: a line for the norms of one kind and state, or with ``full`` for each."""
        if not self.rows:
            return "no norm in the model"
        if full:
            lines: list[tuple[str, ...]] = [("name", "norm", "channels", "groups", *_STATE_HEADS)]
            lines += [
                (row.name, row.kind, str(row.num_channels), str(row.num_groups or "-"), *_states(row))
                for row in self.rows
            ]
        else:
            lines = [FOLDED_HEADS, *self.folded()]
        kinds = Counter(row.kind for row in self.rows)
        total = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        return "\n".join([*aligned(lines), f"norms: {len(self.rows)} ({total})"])

    def folded(self) -> Iterable[tuple[str, ...]]:
        """Yield a row of text, headed by ``FOLDED_HEADS``, for the norms of one part, kind and state."""
        kinds: dict[tuple[str, ...], list[NormRow]] = {}
        for row in self.rows:
            kinds.setdefault((_part(row.name), row.kind, *_states(row)), []).append(row)
        for (part, kind, *states), rows in kinds.items():
            channels = span(row.num_channels for row in rows)
            groups = span(row.num_groups for row in rows if row.num_groups)
            yield (str(len(rows)), part, kind, channels, groups, *states)

    def __str__(self) -> str:
        """Return the table with one line for all norms of a part that are of one kind and state."""
        return self.text()


def norm_table(model: nn.Module, cfg: Any = None) -> NormTable:
    """Tell which norms a model has, and what training does to each.

    Args:
        model: asked in training mode, and left as it is.
        cfg: the config it is from. ``optim_wrapper`` tells the decay; ``train_dataloader`` and ``load_from``
            are for the warnings, which are fewer without.

    Raises:
        TypeError: not a module.
        ValueError: the config's optimizer cannot be built.

    Example:
        >>> norm_table(nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32))).rows[0].updates_statistics
        True
    """
    rows = norm_rows(model, cfg)
    return NormTable(rows, tuple(traps(model, rows, cfg)))


def _states(row: NormRow) -> tuple[str, str, str]:
    statistics = {None: "-", False: "kept", True: "updated"}[row.updates_statistics]
    return "yes" if row.trains else "no", {None: "-", False: "no", True: "yes"}[row.decays], statistics


def _part(name: str) -> str:
    """Return the part of a detector that a norm is in: backbone, neck, roi_head.bbox_head and so on."""
    names = name.split(".")
    return ".".join(names[: 2 if names[0] == "roi_head" else 1])
