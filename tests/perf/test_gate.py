import itertools

import pytest
import torch

from mmgn.ops import group_norm
from mmgn.perf import gate

CPU = torch.device("cpu")


def test_native_is_right():
    assert gate.check(CPU, "native", quick=True) == 12


def test_cases_cover_every_combination_and_every_shape():
    found = [case for _, case in gate.cases(CPU)]
    full = found[: -len(gate.ODDITIES)]
    combinations = {
        (c.x.dtype, c.x.is_contiguous(memory_format=torch.channels_last), c.activation, c.residual is not None)
        for c in full
        if c.x.shape[2] > 1
    }
    # A single pixel is in both layouts at once, so its combinations are left out.
    assert len(combinations) >= len(full) - sum(c.x.shape[2] == 1 for c in full)
    assert {(tuple(c.x.shape), c.num_groups) for c in full} == set(gate.SHAPES)
    assert {c.x.dtype for c in found[len(full) :]} == set(gate.DTYPES)


def test_quick_cases_hold_every_pair():
    seen = set()
    for _, case in gate.cases(CPU, quick=True):
        layout = case.x.is_contiguous()
        values = (case.x.dtype, layout, case.activation, case.residual is not None)
        seen |= set(itertools.combinations(enumerate(values), 2))
    sizes = (3, 2, 3, 2)
    pairs = sum(a * b for a, b in itertools.combinations(sizes, 2))
    # Of activation and residual, quick takes all six; every pair is there.
    assert len(seen) == pairs


def off_by_a_bit(x, *args, **kwargs):
    y = group_norm(x, *args, **(kwargs | {"backend": "native"}))
    return y * (1.01 if kwargs["activation"] == "silu" else 1)


def leaves_an_element(x, *args, **kwargs):
    y = group_norm(x, *args, **(kwargs | {"backend": "native"}))
    written = torch.empty_like(y)
    written[..., :-1] = y[..., :-1]
    return written


def forgets_the_layout(x, *args, **kwargs):
    return group_norm(x, *args, **(kwargs | {"backend": "native"})).contiguous()


CALLS = itertools.count()


def drifts(x, *args, **kwargs):
    y = group_norm(x, *args, **(kwargs | {"backend": "native"}))
    return y + next(CALLS) * 1e-9 if x.dtype == torch.float32 else y


@pytest.mark.parametrize(
    ("op", "said"),
    [
        (off_by_a_bit, r"activation=silu.*: y: error"),
        (leaves_an_element, "y: error nan"),
        (forgets_the_layout, "layout=channels_last.*y is not torch.channels_last"),
        (drifts, r"torch\.float32.*differs between two runs"),
    ],
)
def test_a_wrong_kernel_is_named(monkeypatch, op, said):
    monkeypatch.setattr(gate, "group_norm", op)
    with pytest.raises(gate.WrongKernelError, match=said):
        gate.check(CPU, "native", quick=True)


def test_a_kernel_that_does_not_run_is_wrong():
    with pytest.raises(gate.WrongKernelError, match="backend must be one of"):
        gate.check(CPU, "vulkan", quick=True)


def test_poison_is_taken_back():
    gate.check(CPU, "native", quick=True)
    assert not torch.are_deterministic_algorithms_enabled()
