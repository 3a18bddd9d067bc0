"""The cells of a study: which norm, batch size, seed and data each has, and which of them waits for which."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import gcd

from mmgn.study.tasks import NORMS


@dataclass(frozen=True)
class Cell:
    """One training of the grid.

    Attributes:
        data: name of the data set.
        norm: of :data:`mmgn.study.tasks.NORMS`; the extremes of group norm are 'LN' and 'IN'.
        batch_size: images per process and iteration, those that a batch norm's statistics are of.
        seed: of all that is random.
        num_groups: of 'GN' and 'LN'; None otherwise.
        channels_per_group: of 'GN' and 'IN'; None otherwise.
    """

    data: str
    norm: str
    batch_size: int
    seed: int
    num_groups: int | None = None
    channels_per_group: int | None = None

    @property
    def id(self) -> str:
        """Name of its config and its folder, such as ``digits-lit_gn-8g_b32_seed0``."""
        norm = {"BN*": "bn-frozen"}.get(self.norm, self.norm.lower())
        if self.norm == "GN":
            norm += f"-{self.num_groups}g" if self.num_groups else f"-{self.channels_per_group}cpg"
        return f"{self.data}_{norm}_b{self.batch_size}_seed{self.seed}"


@dataclass(frozen=True)
class Request:
    """What a study is asked to vary.

    Attributes:
        norms: of :data:`mmgn.study.tasks.NORMS`.
        batch_sizes: per process; the group table is made at the largest.
        seeds: how many, from 0.
        data: names of the data sets; the group table is made of the first.
        groups: numbers of groups of the group table.
        channels_per_group: the table's other half.
    """

    norms: tuple[str, ...]
    batch_sizes: tuple[int, ...]
    seeds: int
    data: tuple[str, ...]
    groups: tuple[int, ...] = ()
    channels_per_group: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for norm in self.norms:
            if norm not in NORMS:
                raise ValueError(f"--norms: unknown norm {norm!r}; known are {', '.join(NORMS)}")
        for flag, values in (
            ("--norms", self.norms),
            ("--batch-sizes", self.batch_sizes),
            ("--groups", self.groups),
            ("--channels-per-group", self.channels_per_group),
        ):
            twice = [value for value, count in Counter(values).items() if count > 1]
            if twice:
                raise ValueError(f"{flag} has {twice[0]} more than once; list it once")
            least = min((value for value in values if isinstance(value, int)), default=1)
            if least < 1:
                raise ValueError(f"{flag}: numbers must be positive, got {least}")
        if not (self.norms and self.batch_sizes):
            raise ValueError("--norms and --batch-sizes need at least one value each")
        if self.seeds < 1:
            raise ValueError(f"--seeds must be at least 1, got {self.seeds}")


def make_grid(request: Request, base: dict[str, int], own_pretraining: bool) -> list[Cell]:
    """Return the cells of a study, each once, in the order of the request.

    Args:
        request: what is varied.
        base: the base config's own groups, as ``dict(num_groups=...)`` or ``dict(channels_per_group=...)``: 'GN'.
        own_pretraining: whether BN* starts from the study's own BN; its cells are then there, asked for or not.
    """
    kinds = {"GN": base, "LN": {"num_groups": 1}, "IN": {"channels_per_group": 1}}
    sizes = sorted(request.batch_sizes, reverse=True)
    seeds = range(request.seeds)
    cells = [
        Cell(data, norm, size, seed, **kinds.get(norm, {}))
        for data in request.data
        for norm in request.norms
        for size in sizes
        for seed in seeds
    ]
    table = [{"num_groups": count} for count in request.groups]
    table += [{"channels_per_group": count} for count in request.channels_per_group]
    names = {tuple(groups.items()): norm for norm, groups in kinds.items()}
    cells += [
        Cell(request.data[0], names.get(tuple(groups.items()), "GN"), sizes[0], seed, **groups)
        for groups in table
        for seed in seeds
    ]
    if own_pretraining:
        cells += [pretraining(cell, sizes[0]) for cell in cells if cell.norm == "BN*"]
    return list(dict.fromkeys(cells))


def pretraining(cell: Cell, batch_size: int) -> Cell:
    """Return the BN cell whose weights a BN* cell starts from.

    Args:
        cell: of BN*.
        batch_size: the grid's largest.
    """
    return replace(cell, norm="BN", batch_size=batch_size)


def check_groups(request: Request, channels: Iterable[int]) -> None:
    """Check that the groups asked for divide the channels of every norm of the model.

    Raises:
        ValueError: some do not.
    """
    counts = sorted(set(channels))
    for flag, values in (("--groups", request.groups), ("--channels-per-group", request.channels_per_group)):
        for value in values:
            wrong = [count for count in counts if count % value]
            if wrong:
                raise ValueError(
                    f"{flag}: {value} does not divide the {wrong[0]} channels that some of the model's norms have; "
                    f"what divides all is {', '.join(map(str, common_divisors(counts)))}"
                )


def common_divisors(channels: Sequence[int]) -> list[int]:
    """Return the numbers that divide all of ``channels``, the largest first."""
    largest = gcd(*channels)
    return [divisor for divisor in range(largest, 0, -1) if largest % divisor == 0]


def default_groups(channels: Iterable[int]) -> tuple[int, ...]:
    """Return the paper's group numbers, 64 to 1, as far as the channels allow them."""
    return tuple(n for n in common_divisors(sorted(set(channels))) if n <= 64 and n & (n - 1) == 0)
