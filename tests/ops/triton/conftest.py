"""Cases by pairs: ``@pytest.mark.pairwise(name=values, ...)`` runs a test over a table in which every two values of
different names meet; ``-m exhaustive`` runs such tests, and only them, over the full product. Names given without
values are of fixtures, which take theirs."""

import itertools
import random
from contextlib import contextmanager

import pytest

from mmgn.ops.triton import launcher, tiling


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "pairwise(*fixtures, **values): run over cases in which every two values meet once or more"
    )


def pytest_generate_tests(metafunc):
    marker = metafunc.definition.get_closest_marker("pairwise")
    if marker is None:
        return
    exhaustive = metafunc.config.option.markexpr == "exhaustive"
    cases = itertools.product(*marker.kwargs.values()) if exhaustive else pairwise(*marker.kwargs.values())
    marks = [pytest.mark.exhaustive] if exhaustive else []
    cases = [pytest.param(*case, marks=marks, id="-".join(map(str, case))) for case in cases]
    metafunc.parametrize(tuple(marker.kwargs), cases, indirect=marker.args)


def pairwise(*values):
    """Return a small table of rows in which every two values of different columns meet: greedy, always the same."""
    columns = range(len(values))
    missing = {
        ((i, a), (j, b))
        for i, j in itertools.combinations(columns, 2)
        for a, b in itertools.product(range(len(values[i])), range(len(values[j])))
    }

    def pairs(row):
        return set(itertools.combinations(enumerate(row), 2))

    draw = random.Random(0)
    table = []
    while missing:
        # Each row holds a pair that is missing, and of some rows that do, the most.
        seed = dict(min(missing))
        rows = [[seed.get(i, draw.randrange(len(values[i]))) for i in columns] for _ in range(100)]
        row = max(rows, key=lambda row: len(pairs(row) & missing))
        missing -= pairs(row)
        table.append(tuple(column[k] for column, k in zip(values, row, strict=True)))
    return table


@contextmanager
def cut_as(regime):
    """Cut tensors as planned, or, small as they are, as larger ones are."""
    with pytest.MonkeyPatch.context() as patch:
        if regime != "as planned":
            patch.setattr(tiling, "WHOLE_ELEMENTS", 32)
        if regime == "streamed in small tiles":
            patch.setattr(tiling, "BYTES_PER_THREAD", 32)
        launcher._call.cache_clear()
        yield
    launcher._call.cache_clear()


@pytest.fixture(scope="session")
def cut():
    return cut_as


@pytest.fixture
def regime(request):
    with cut_as(request.param):
        yield request.param
