"""A table as text, and the figures in it: one form for the page, the Markdown and the terminal."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

NONE = "–"


@dataclass(frozen=True)
class Table:
    """Cells as text, not escaped; columns in ``numeric`` are set flush right."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    numeric: Collection[int] = ()
    #: By position of a row, what kind of row it is; the page sets these apart.
    kinds: Mapping[int, str] = field(default_factory=dict)


def percent(fraction: float | None) -> str:
    """Return a fraction in per cent, to one decimal."""
    return NONE if fraction is None else f"{100 * fraction:.1f}"


def count(number: int | None) -> str:
    """Return a whole number."""
    return NONE if number is None else f"{number:,}"


def decimal(number: float | None, digits: int = 2) -> str:
    """Return a number to so many decimals."""
    return NONE if number is None else f"{number:.{digits}f}"


def mebibytes(number: float | None) -> str:
    """Return a number of MiB."""
    return NONE if number is None else f"{number:,.0f} MiB"


def duration(seconds: float | None) -> str:
    """Return a time in its largest units."""
    if seconds is None:
        return NONE
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
