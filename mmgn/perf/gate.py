"""No figure for a wrong kernel: what must hold on a device before anything is timed there."""

import itertools
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mmgn.ops import group_norm
from mmgn.testing import Case, assert_no_worse, make_case, run
from mmgn.testing.poison import poisoned_empty

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
# (N, C, *spatial), G: one pixel (in groups of four: of two, the worst error is too rare a case to measure another by),
# the RoI heads, odd sizes, D of 1, 2, 3 and C, and a group that is split.
SHAPES: list[tuple[tuple[int, ...], int]] = [
    ((3, 64, 1, 1), 16),
    ((9, 256, 7, 7), 32),
    ((2, 96, 13, 21), 32),
    ((2, 64, 57, 91), 32),
    ((1, 40, 5, 11), 40),
    ((2, 24, 31, 9), 1),
    ((1, 128, 199, 335), 32),
]
# No sample, a mean far from 0, no parameters, mixed dtypes, memory that is neither of the two formats, 1-d, 3-d.
ODDITIES: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((0, 64, 7, 7), {}),
    ((2, 64, 25, 42), {"offset": 10.0}),
    ((2, 64, 25, 42), {"offset": 1e3}),
    ((2, 64, 25, 42), {"affine": False}),
    ((2, 64, 25, 42), {"param_dtype": torch.float32, "layout": "channels_last"}),
    ((2, 64, 25, 42), {"layout": "sliced", "residual": True}),
    ((2, 64, 25, 42), {"layout": "expanded"}),
    ((2, 64, 41), {"activation": "silu"}),
    ((1, 64, 3, 9, 11), {"layout": "channels_last"}),
]


class WrongKernelError(RuntimeError):
    """A backend is wrong on a device; says in which case."""


def cases(device: torch.device, *, quick: bool = False) -> Iterator[tuple[str, Case]]:
    """Yield named cases: every dtype, layout, activation and residual together, the shapes and the oddities in turn.

    Args:
        device: where the tensors live.
        quick: one shape of a few pixels for a third of the combinations.
    """
    combinations = itertools.product(DTYPES, ("contiguous", "channels_last"), ("none", "relu", "silu"), (False, True))
    for i, (dtype, layout, activation, residual) in enumerate(combinations):
        if quick and i % 3 != (i // 6) % 3:
            continue
        shape, num_groups = SHAPES[2] if quick else SHAPES[i % len(SHAPES)]
        yield _named(shape, num_groups, dtype, device, layout=layout, activation=activation, residual=residual)
    if quick:
        return
    for i, (oddity, options) in enumerate(ODDITIES):
        yield _named(oddity, 32, DTYPES[i % len(DTYPES)], device, **{"activation": "relu", **options})


def _named(
    shape: tuple[int, ...], num_groups: int, dtype: torch.dtype, device: torch.device, **options: Any
) -> tuple[str, Case]:
    said = ", ".join(f"{key}={value}" for key, value in options.items())
    case = make_case(shape, num_groups, dtype, device=str(device), **options)
    return f"{'x'.join(map(str, shape))}, G={num_groups}, {dtype}, {said}", case


def check(device: torch.device, backend: str, *, quick: bool = False) -> int:
    """Hold a backend against the float64 oracle; return the number of cases.

    Raises:
        WrongKernelError: naming the first case that is wrong, gives other bits the second time, changes the memory
            format, or does not run at all.
    """
    count = 0
    for name, case in cases(device, quick=quick):
        check_case(name, case, backend)
        count += 1
    return count


def check_case(name: str, case: Case, backend: str) -> None:
    """Check one case; see :func:`check`. Running out of memory is passed on: it says nothing about the kernel."""
    op = partial(group_norm, backend=backend)
    try:
        with warnings.catch_warnings(), poisoned_empty():
            # Of torch's own operators that are not deterministic.
            warnings.simplefilter("ignore")
            assert_no_worse(case, op)
            _assert_repeatable(case, op)
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:
        raise WrongKernelError(f"backend {backend!r} on {case.x.device} fails for {name}: {error}") from error


def _assert_repeatable(case: Case, op: Callable[..., Tensor]) -> None:
    first, second = run(case, op), run(case, op)
    for name, value in first.items():
        again = second[name]
        if value is not None and again is not None:
            assert torch.equal(value, again), f"{name} differs between two runs on the same input"
    y = first["y"]
    for memory_format in (torch.contiguous_format, torch.channels_last):
        if y is not None and y.dim() == 4 and case.x.is_contiguous(memory_format=memory_format):
            assert y.is_contiguous(memory_format=memory_format), f"y is not {memory_format}, as x is"
