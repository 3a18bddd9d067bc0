"""What sets group norm apart, exactly: a sample's output and input gradient are its own, and batch norm's are not.

They have the same bits whatever else is in the batch, wherever in it the sample stands and however large it is: with
the fused kernels, and with torch's own for CPUs where x is contiguous, there with any number of threads. Of torch's own
for GPUs nothing is tested here. Two of those for CPUs do so to rounding only. That for channels_last cuts the positions
of all samples evenly among its threads, so that the order of a sample's sums depends on the batch's size. That for SiLU
rounds the last elements of a thread, too few for a vector, in another way than the others.
"""

from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mmgn import FusedGN, group_norm
from mmgn.ops.triton import availability
from mmgn.testing import assert_no_worse, make_case, run

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TRITON_REFUSES = availability.refusal(torch.zeros(1, 2, 1, 1, device=DEVICE))
needs_triton = pytest.mark.skipif(TRITON_REFUSES is not None, reason=f"no fused kernels: {TRITON_REFUSES}")
OF_SAMPLES = ("x", "residual", "dy")
# What the others of a batch are multiplied by.
NEIGHBOURS = {"of the same kind": 1.0, "large": 20.0, "not a number": float("nan")}


@contextmanager
def num_threads(number):
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def change_samples(case, change):
    given = {name: getattr(case, name) for name in OF_SAMPLES}
    return replace(case, **{name: None if t is None else change(t) for name, t in given.items()})


def alone(case, n):
    return change_samples(case, lambda t: t[n : n + 1])


def among_others(case, n, factor):
    """Return the case with all samples but n reversed in their order and multiplied."""

    def change(t):
        other = (t.flip(0) * factor).clone(memory_format=torch.preserve_format)
        other[n] = t[n]
        return other

    return change_samples(case, change)


def assert_same_bits(got, n, want, m):
    """Assert that sample n of a run is sample m of another."""
    for name in ("y", "dx", "dresidual"):
        if want[name] is not None:
            a, b = got[name][n].contiguous(), want[name][m].contiguous()
            assert torch.isfinite(b).all()
            assert torch.equal(a.view(torch.uint8), b.view(torch.uint8)), name


def assert_own(case, factor, backend):
    op = partial(group_norm, backend=backend)
    together = run(case, op)
    for n in (0, len(case.x) - 1):
        assert_same_bits(run(alone(case, n), op), 0, together, n)
        assert_same_bits(run(among_others(case, n, factor), op), n, together, n)


@st.composite
def cases(draw, dtypes, layouts, activations, samples, channels, side, device):
    groups, d = draw(st.integers(1, channels), "G"), draw(st.integers(1, channels), "D")
    spatial = draw(st.lists(st.integers(1, side), min_size=2, max_size=3), "spatial")
    return make_case(
        (draw(st.integers(2, samples), "N"), groups * d, *spatial),
        groups,
        draw(st.sampled_from(dtypes), "dtype"),
        layout=draw(st.sampled_from(layouts), "layout"),
        affine=draw(st.booleans(), "affine"),
        residual=draw(st.booleans(), "residual"),
        activation=draw(st.sampled_from(activations), "activation"),
        seed=draw(st.integers(0, 99), "seed"),
        device=device,
    )


NATIVE = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


@settings(derandomize=True, deadline=None, max_examples=80, database=None)
@given(
    case=cases(NATIVE, ("contiguous",), ("none", "relu"), samples=9, channels=9, side=12, device="cpu"),
    factor=st.sampled_from([*NEIGHBOURS.values()]),
    threads=st.integers(1, 3),
)
def test_torchs_kernels_keep_a_samples_bits(case, factor, threads):
    with num_threads(threads):
        assert_own(case, factor, "native")


@needs_triton
@settings(derandomize=True, deadline=None, max_examples=12, database=None)
@given(
    # A small N, for the interpreter's sake; tests/ops/triton holds that a plan knows none.
    case=cases(
        (torch.float32, torch.float16),
        ("contiguous", "channels_last"),
        ("none", "relu", "silu"),
        samples=4,
        channels=4,
        side=5,
        device=DEVICE,
    ),
    factor=st.sampled_from([*NEIGHBOURS.values()]),
)
def test_fused_kernels_keep_a_samples_bits(case, factor):
    assert_own(case, factor, "triton")


@pytest.mark.parametrize("dtype", NATIVE, ids=str)
@pytest.mark.parametrize("shape", [(64, 32, 7, 7), (16, 16, 33, 35), (8, 64, 56, 56)])
def test_batches_and_threads_of_any_number_keep_a_samples_bits(shape, dtype):
    case = make_case(shape, 8, dtype, activation="relu", residual=True)
    with num_threads(1):
        want = run(case, group_norm)
    for threads, samples in ((1, 1), (2, 1), (2, 3), (3, shape[0])):
        with num_threads(threads):
            got = run(change_samples(case, lambda t, n=samples: t[-n:]), group_norm)
        for n in range(-samples, 0):
            assert_same_bits(got, n, want, n)


def in_parts(size):
    """Return group norm of a batch that is cut into smaller ones."""

    def op(x, *args, residual, **kwargs):
        parts = zip(x.split(size), residual.split(size), strict=True)
        return torch.cat([group_norm(x, *args, residual=residual, **kwargs) for x, residual in parts])

    return op


def has_same_bits(case, size):
    parts, whole = run(case, in_parts(size)), run(case, group_norm)
    return all(torch.equal(parts[name], whole[name]) for name in ("y", "dx", "dresidual"))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_channels_last_on_a_cpu_keeps_bits_in_batches_of_one_size_and_values_in_others(threads):
    case = make_case((4, 64, 40, 40), 4, layout="channels_last", activation="relu", residual=True)
    with num_threads(threads):
        together = run(case, group_norm)
        for factor in NEIGHBOURS.values():
            assert_same_bits(run(among_others(case, 1, factor), group_norm), 1, together, 1)
        for size in (1, 2, 3):
            assert_no_worse(case, in_parts(size))
        # Not so in batches of 2, which two threads part between the samples, as they do batches of 4.
        assert has_same_bits(case, 1) == (threads == 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_silu_on_a_cpu_keeps_values_to_a_rounding(dtype):
    case = make_case((33, 6, 3, 5), 3, dtype, activation="silu", residual=True)
    for size in (1, 2, 3):
        assert_no_worse(case, in_parts(size))
    if dtype == torch.float32 and torch.backends.cpu.get_cpu_capability() != "DEFAULT":
        # Where there are vectors; rounding to half precision hides it.
        assert not has_same_bits(case, 1)


def normalise(norm, x, dy):
    x = x.clone().requires_grad_()
    norm.zero_grad()
    y = norm(x)
    y.backward(dy)
    return y.detach(), x.grad


def statistics_of(y):
    """Return mean and reciprocal deviation of each group, as torch keeps them for the gradient."""
    node = y.grad_fn
    while "GroupNorm" not in node.name():
        ((node, _),) = node.next_functions
    return node._saved_result1, node._saved_result2


@pytest.mark.parametrize("norm", [FusedGN(16, 4, activation="relu"), FusedGN(16, 1), FusedGN(16, 16)], ids=repr)
def test_training_and_evaluation_are_the_same_bits(norm):
    x, dy = torch.randn(2, 4, 16, 6, 5)
    assert not list(norm.buffers())
    trained, statistics = normalise(norm.train(), x, dy), statistics_of(norm(x))
    torch.testing.assert_close(statistics[0], x.view(4, norm.num_groups, -1).mean(2))
    for got, want in zip(normalise(norm.eval(), x, dy), trained, strict=True):
        assert torch.equal(got, want)
    for others in (x, torch.cat([x[:1], 2 * x[1:] + 1]), x[:1]):
        for got, want in zip(statistics_of(norm(others)), statistics, strict=True):
            assert torch.equal(got[0], want[0])


def test_batch_norms_output_and_gradient_are_the_batchs():
    """The same questions with the other answer: neighbours, the batch's size and evaluation each change a sample."""
    x, dy = torch.randn(2, 4, 16, 6, 5)
    others_x, others_dy = (torch.cat([t[:1], 2 * t[1:] + 1]) for t in (x, dy))
    norm = nn.BatchNorm2d(16)
    want = normalise(norm, x, dy)
    for other in (
        normalise(norm, others_x, dy),
        normalise(norm, x[:1], dy[:1]),
        normalise(norm.eval(), x, dy),
    ):
        for got, of_batch in zip(other, want, strict=True):
            assert (got[0] - of_batch[0]).abs().max() > 0.05
    # The gradient alone of others changes a sample's.
    norm.train()
    assert (normalise(norm, x, others_dy)[1][0] - want[1][0]).abs().max() > 0.05
    own = FusedGN(16, 4)
    assert torch.equal(normalise(own, x, others_dy)[1][0], normalise(own, x, dy)[1][0])


@pytest.mark.parametrize(("norm", "samples_alone"), [(partial(FusedGN, num_groups=4), True), (nn.BatchNorm2d, False)])
def test_a_batchs_gradient_is_the_sum_of_its_samples_gradients(norm, samples_alone):
    """So batches of one, accumulated, train as the batch does."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), norm(8), nn.ReLU(), nn.Conv2d(8, 8, 3), norm(8), nn.Flatten()).double()
    x, dy = torch.randn(4, 3, 8, 8).double(), torch.randn(4, 8 * 4 * 4).double()

    def gradients(size):
        model.zero_grad()
        for part, dy_part in zip(x.split(size), dy.split(size), strict=True):
            model(part).backward(dy_part)
        # A convolution's bias before batch norm has none, so all together.
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    error = (gradients(1) - gradients(4)).abs().max() / gradients(4).abs().max()
    assert error < 1e-12 if samples_alone else error > 0.1


def layer_norm(x, num_groups, weight, bias, eps, **_):
    # Its weight is of every element, group norm's of every channel.
    weight, bias = (p[:, None, None].expand(x.shape[1:]) for p in (weight, bias))
    return F.layer_norm(x, x.shape[1:], weight, bias, eps)


def instance_norm(x, num_groups, weight, bias, eps, **_):
    return F.instance_norm(x, weight=weight, bias=bias, eps=eps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("backend", ["native", pytest.param("triton", marks=needs_triton)])
@pytest.mark.parametrize(("groups", "extreme"), [(1, layer_norm), (12, instance_norm)])
def test_one_group_is_layer_norm_and_one_channel_a_group_instance_norm(groups, extreme, backend, dtype):
    case = make_case((3, 12, 7, 9), groups, dtype, device=DEVICE if backend == "triton" else "cpu")
    assert_no_worse(case, partial(group_norm, backend=backend), yardstick=extreme)
