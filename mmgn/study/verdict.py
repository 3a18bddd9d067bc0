"""What the figures say about statements on norms, by one rule: t-intervals of differences paired by seed."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

from mmgn.study import quoted
from mmgn.study.results import METRICS, Row, Setting, by_seed, settings_over_batches

RULE = (
    "A difference is taken seed by seed, and its interval is Student's t of those differences, at 95 %. A statement "
    "*shows* where the interval lies above 0, *the reverse shows* where it lies below, and it *does not show* where "
    "the interval holds 0: these seeds cannot tell, which is no proof of the opposite. One seed, or seeds that agree "
    "to the last digit, give no interval and no verdict. Of 20 intervals over no difference, about one leaves 0 out "
    "by chance."
)
LEVEL = 0.95
#: Images per GPU in its table 2.
PAPERS_SMALLEST = 2
#: Where figures are multiples of one test image, few seeds may agree by chance; below this is rounding.
NO_SPREAD = 1e-9
#: What the paper says is not so.
DENIED = "GN is worse at batch {small} than at {large}"
#: A statement, and the cells whose errors are the larger and the smaller sum where it is true. Those with a small batch
#: size are made for each that :func:`spans` has.
STATEMENTS = (
    ("BN is worse at batch {small} than at {large}", ["BN small"], ["BN large"]),
    (DENIED, ["GN small"], ["GN large"]),
    ("BN loses more than GN from batch {large} to {small}", ["BN small", "GN large"], ["BN large", "GN small"]),
    ("GN is better than BN at batch {small}", ["BN small"], ["GN small"]),
    ("BN is better than GN at batch {large}", ["GN large"], ["BN large"]),
    ("LN is worse than GN at batch {large}", ["LN large"], ["GN large"]),
    ("IN is worse than GN at batch {large}", ["IN large"], ["GN large"]),
)


@dataclass(frozen=True)
class Difference:
    """Differences between cells, one for each seed that all of them have a figure for."""

    values: tuple[float, ...]

    @property
    def n(self) -> int:
        """Number of seeds."""
        return len(self.values)

    @property
    def mean(self) -> float | None:
        """None without a seed."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def spread(self) -> float | None:
        """Sample standard deviation; None for fewer than two seeds."""
        return statistics.stdev(self.values) if self.n > 1 else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Student's t-interval of the mean; None where the seeds tell no spread."""
        if self.mean is None or self.spread is None or self.spread < NO_SPREAD:
            return None
        half = float(stats.t.ppf((1 + LEVEL) / 2, self.n - 1)) * self.spread / math.sqrt(self.n)
        return self.mean - half, self.mean + half


@dataclass(frozen=True)
class Statement:
    """A sentence that is true where ``difference``, in points of a metric, is above 0.

    Attributes:
        quoted: the paper's difference, of ResNet-50's errors on ImageNet; None where it has no such batch size.
        denied: whether the paper says the contrary.
    """

    text: str
    quoted: float | None
    difference: Difference
    denied: bool = False

    @property
    def verdict(self) -> str:
        """What the difference says by :data:`RULE`."""
        if self.difference.n < 2:
            return "one seed: no verdict" if self.difference.n else "not measured: no verdict"
        if self.difference.interval is None:
            return "no spread: no verdict"
        low, high = self.difference.interval
        return "shows" if low > 0 else "the reverse shows" if high < 0 else "does not show"


def paired(plus: Sequence[Mapping[int, float]], minus: Sequence[Mapping[int, float]]) -> Difference:
    """Return by seed what the sum of ``plus`` has over that of ``minus``; seeds that one of them lacks are left out.

    Example:
        >>> paired([{0: 3.0, 1: 5.0}], [{0: 1.0, 2: 1.0}]).values
        (2.0,)
    """
    seeds = sorted(set.intersection(*(set(cell) for cell in (*plus, *minus))))
    return Difference(tuple(sum(cell[seed] for cell in plus) - sum(cell[seed] for cell in minus) for seed in seeds))


def spans(rows: Sequence[Row]) -> list[dict[str, int]]:
    """Return from which batch size of a data set to which a norm is followed: the largest, and the smallest.

    Where that is smaller than the paper's, first to the paper's: at 1 a batch norm has the statistics of one image.
    """
    sizes = {row.batch_size for row in rows}
    smallest = sorted({PAPERS_SMALLEST, min(sizes)} & sizes - {max(sizes)}, reverse=True) or [max(sizes)]
    return [{"large": max(sizes), "small": small} for small in smallest]


def change(rows: Sequence[Row], setting: Setting, span: Mapping[str, int], metric: str) -> Difference:
    """Return what is added to a setting's metric over a span of batch sizes."""
    large, small = (by_seed(rows, setting, span[end], metric) for end in ("large", "small"))
    return paired([small], [large])


def statements(rows: Sequence[Row], metric: str) -> list[Statement]:
    """Return the statements on a data set of which all norms are planned.

    Where several group numbers are planned over all batch sizes, the first stands for GN.
    """
    settings = {setting.norm: setting for setting in reversed(settings_over_batches(rows))}
    sign = -1 if METRICS[metric].higher_is_better else 1

    def errors(norm: str, batch_size: int) -> dict[int, float]:
        return {seed: sign * value for seed, value in by_seed(rows, settings[norm], batch_size, metric).items()}

    found: dict[str, Statement] = {}
    for text, *sides in STATEMENTS:
        if not {cell.split()[0] for side in sides for cell in side} <= settings.keys():
            continue
        for span in spans(rows):
            # With one batch size, what is at the largest is all there is.
            if span["small"] == span["large"] and "{small}" in text:
                continue
            cells = [[(norm, span[end]) for norm, end in map(str.split, side)] for side in sides]
            here = paired(*([errors(*cell) for cell in side] for side in cells))
            own = Statement(text.format(**span), _quoted(*cells), here, denied=text == DENIED)
            found.setdefault(own.text, own)
    return list(found.values())


def _quoted(worse: Sequence[tuple[str, int]], better: Sequence[tuple[str, int]]) -> float | None:
    """Return what the paper's errors of the first cells have over those of the others, if it has them all."""
    errors = [(sign, quoted.error(*cell)) for sign, side in ((1, worse), (-1, better)) for cell in side]
    return None if any(error is None for _, error in errors) else sum(sign * error for sign, error in errors if error)
