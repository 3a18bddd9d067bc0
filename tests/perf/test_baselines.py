from dataclasses import replace

import pytest

from mmgn.ops.triton.problem import Problem
from mmgn.perf import baselines
from mmgn.perf.devices import A100, H100

#: 275 MB in half precision: no cache helps.
LARGE = Problem(n=16, c=64, s=400 * 336, groups=32, activation="relu")


def bytes_per_element(kernels):
    return sum(b for k in kernels for _, b in k.reads + k.writes)


@pytest.mark.parametrize(
    ("kernels", "bytes_"),
    [
        # The tables of passes: forward 5 of 2 bytes; casts 2 + 4, statistics 4, affine 8, ReLU 8, cast back 4 + 2.
        (baselines.eager_forward(LARGE), 10),
        (baselines.eager_forward(LARGE, autocast=True), 32),
        (baselines.eager_forward(replace(LARGE, layout="channels_last")), 10 + 2 * 4),
        (baselines.eager_forward(replace(LARGE, layout="channels_last"), autocast=True), 32 + 8 + 4),
        (baselines.eager_forward(replace(LARGE, activation="none")), 6),
        (baselines.eager_forward(replace(LARGE, residual=True)), 16),
        (baselines.eager_forward(replace(LARGE, dtype="float32")), 20),
        (baselines.eager_backward(LARGE), 16),
        # Cast of dy 2 + 4, ReLU 12, reductions 8, dx 12, cast back 4 + 2.
        (baselines.eager_backward(LARGE, autocast=True), 44),
        (baselines.inductor(replace(LARGE, n=2), H100), 6),
        (baselines.inductor(replace(LARGE, n=2, residual=True), H100), 8),
        (baselines.inductor(replace(LARGE, n=2), H100, backward=True), 14),
    ],
)
def test_passes(kernels, bytes_):
    assert bytes_per_element(kernels) == bytes_


def test_inductor_takes_one_kernel_where_it_does_not_split_the_reduction():
    heads = Problem(n=1024, c=256, s=49, groups=32, activation="relu")
    (whole,) = baselines.inductor(heads, H100)
    assert [name for name, _ in whole.reads + whole.writes] == ["x", "y"]
    (streamed,) = baselines.inductor(replace(heads, s=196), H100)
    assert [name for name, _ in streamed.reads + streamed.writes] == ["x", "x", "y"]


def test_a_large_tensor_costs_its_bytes_at_full_bandwidth_and_its_launches():
    kernels = baselines.eager_forward(LARGE)
    expected = 10 * LARGE.numel / H100.bandwidth + 4 * 3e-6
    assert baselines.seconds(kernels, LARGE, H100) == pytest.approx(expected, rel=1e-2)


def test_a_small_tensor_is_read_once_and_written_back_once():
    """17 MB fit in L2 with what is made of them: one read of x, one write each of the norm and of y."""
    small = replace(LARGE, n=2, c=64, s=200 * 336)
    expected = 6 * small.numel / H100.bandwidth + 4 * 3e-6
    assert baselines.seconds(baselines.eager_forward(small), small, H100) == pytest.approx(expected, rel=1e-2)


def test_autocast_has_a_price_for_half_precision_alone():
    small = replace(LARGE, n=2, c=64, s=50 * 84)
    assert baselines.price(replace(small, dtype="float32"), A100)["autocast"] is None
    prices = baselines.price(small, A100)
    assert prices["inductor"] < prices["eager"] < prices["autocast"]
