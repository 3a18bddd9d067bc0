"""The fused kernels against the float64 oracle: interpreted, every access checked, or compiled where there is a GPU.

The tolerance is :func:`mmgn.testing.assert_no_worse`'s: twice torch's own error in the same dtype plus one rounding,
eps * max|truth|. It needs no allowance for the interpreter, which cuts bfloat16 off where a GPU rounds to nearest: off
by less than eps * |value| rather than half of that, and so within the one rounding.
"""

import math
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("triton", minversion="3.3")

from mmgn import group_norm
from mmgn.ops.triton import launcher
from mmgn.testing import assert_no_worse, make_case, run
from mmgn.testing.interpreter import record_traffic
from mmgn.testing.oracle import LAYOUTS, RESULTS
from mmgn.testing.poison import poisoned_empty

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
OP = partial(group_norm, backend="triton")
REGIMES = ("as planned", "streamed", "streamed in small tiles")
# Of x, and of weight and bias.
DTYPES = (
    (torch.float32, torch.float32),
    (torch.float16, torch.float16),
    (torch.float16, torch.float32),
    (torch.bfloat16, torch.bfloat16),
    (torch.bfloat16, torch.float32),
)
ACTIVATIONS = ("none", "relu", "silu")
# Shape and G.
SHAPES = (
    ((2, 32, 7, 7), 8),
    ((2, 16, 7, 7), 16),
    ((1, 16, 14, 14), 4),
    ((1, 12, 25, 42), 3),
    ((1, 16, 13, 21), 2),
    ((2, 24, 5, 3), 1),
    ((1, 48, 9, 5), 1),
    ((2, 36, 4, 6), 3),
    ((3, 20, 1, 1), 4),
    ((1, 8, 1, 1), 8),
    ((2, 16), 4),
    ((2, 12, 35), 4),
    ((1, 12, 3, 5, 2), 6),
    ((0, 8, 14, 14), 4),
    ((1, 600, 3, 1), 1),
    ((1, 4, 50, 84), 1),
)


@contextmanager
def checked():
    """Poison what is not initialised; interpreted, check that accesses stay in their tensors and do not race."""
    with poisoned_empty(), nullcontext([]) if DEVICE == "cuda" else record_traffic() as launches:
        yield
    for launch in launches:
        assert math.prod(launch.grid) <= 64, "too slow for the interpreter"
        launch.assert_no_race()


def layout_for(shape, layout):
    """Return a layout that the rank of the shape has."""
    return "contiguous" if layout == "channels_last" and len(shape) not in (4, 5) else layout


def assert_same_bits(a, b, names):
    for name in names:
        if a[name] is not None:
            integer = torch.int32 if a[name].dtype is torch.float32 else torch.int16
            assert torch.equal(a[name].contiguous().view(integer), b[name].contiguous().view(integer)), name


@pytest.mark.pairwise(
    "regime",
    shape=SHAPES,
    layout=LAYOUTS,
    dtypes=DTYPES,
    activation=ACTIVATIONS,
    residual=(False, True),
    affine=(True, False),
    regime=REGIMES,
)
def test_output_and_gradients_match_the_oracle(shape, layout, dtypes, activation, residual, affine, regime):
    size, groups = shape
    dtype, param_dtype = dtypes
    case = make_case(
        size,
        groups,
        dtype,
        param_dtype=param_dtype,
        layout=layout_for(size, layout),
        affine=affine,
        residual=residual,
        activation=activation,
        device=DEVICE,
    )
    with checked():
        assert_no_worse(case, OP)


@pytest.mark.pairwise(
    "regime",
    shape=(((2, 16, 7, 7), 4), ((1, 12, 33, 35), 4), ((2, 8, 16, 16), 8)),
    layout=("contiguous", "channels_last"),
    dtypes=DTYPES,
    regime=REGIMES,
)
def test_large_mean_keeps_the_variance(shape, layout, dtypes, regime):
    case = make_case(*shape, dtypes[0], param_dtype=dtypes[1], layout=layout, offset=1e3, device=DEVICE)
    with checked():
        assert_no_worse(case, OP)


@settings(derandomize=True, deadline=None, max_examples=30, database=None)
@given(data=st.data())
def test_drawn_shapes_match_the_oracle(cut, data):
    groups, d = data.draw(st.integers(1, 6), "G"), data.draw(st.integers(1, 13), "D")
    spatial = data.draw(st.lists(st.integers(1, 11), max_size=3), "spatial")
    shape = (data.draw(st.integers(0, 3), "N"), groups * d, *spatial)
    dtype, param_dtype = data.draw(st.sampled_from(DTYPES), "dtypes")
    case = make_case(
        shape,
        groups,
        dtype,
        param_dtype=param_dtype,
        layout=layout_for(shape, data.draw(st.sampled_from(LAYOUTS), "layout")),
        affine=data.draw(st.booleans(), "affine"),
        residual=data.draw(st.booleans(), "residual"),
        activation=data.draw(st.sampled_from(ACTIVATIONS), "activation"),
        device=DEVICE,
    )
    with cut(data.draw(st.sampled_from(REGIMES), "regime")), checked():
        assert_no_worse(case, OP)


@pytest.mark.parametrize("shape", [(0, 8, 14, 14), (2, 8, 0), (2, 8, 0, 5), (0, 8)])
def test_no_elements(shape):
    x, weight, bias = torch.empty(shape), torch.randn(8), torch.randn(8)
    leaves = [t.to(DEVICE).requires_grad_() for t in (x, weight, bias, x)]
    with checked():
        y = OP(leaves[0], 4, leaves[1], leaves[2], activation="relu", residual=leaves[3])
        y.backward(torch.empty_like(y))
    assert y.shape == leaves[0].grad.shape == leaves[3].grad.shape == shape
    assert not leaves[1].grad.any() and not leaves[2].grad.any()


@pytest.mark.pairwise(
    "regime",
    shape=(((3, 16, 7, 7), 4), ((3, 6, 5, 3), 6), ((3, 16, 11, 13), 2), ((3, 10, 1, 1), 5), ((3, 24, 4, 6), 3)),
    layout=("contiguous", "channels_last"),
    dtype=(torch.float32, torch.float16),
    activation=ACTIVATIONS,
    residual=(False, True),
    regime=REGIMES,
)
def test_bits_depend_on_the_sample_alone(shape, layout, dtype, activation, residual, regime):
    case = make_case(*shape, dtype, layout=layout, activation=activation, residual=residual, device=DEVICE)
    with checked():
        together = run(case, OP)
        assert_same_bits(together, run(case, OP), RESULTS)
    for n in range(3):
        sample = {k: getattr(case, k) for k in ("x", "residual", "dy")}
        sample = {k: None if t is None else t[n : n + 1] for k, t in sample.items()}
        assert launcher.memory_layout(sample["x"]) == launcher.memory_layout(case.x)
        with checked():
            alone = run(replace(case, **sample), OP)
        of_sample = {name: None if t is None else t[n : n + 1] for name, t in together.items()}
        assert_same_bits(of_sample, alone, ("y", "dx", "dresidual"))


@pytest.mark.pairwise("regime", layout=("contiguous", "channels_last"), activation=ACTIVATIONS, regime=REGIMES)
def test_nan_stays_in_its_group_and_is_not_activated_away(layout, activation, regime):
    case = make_case((2, 12, 5, 7), 3, layout=layout, activation=activation, residual=True, device=DEVICE)
    case.x[0, 5, 2, 3] = math.nan
    case.residual[1, 2, 0, 0] = math.nan
    with checked():
        results = run(case, OP)
    expected = torch.zeros(2, 12, 5, 7, dtype=torch.bool, device=DEVICE)
    expected[0, 4:8] = True
    expected[1, 2, 0, 0] = True
    assert torch.equal(results["y"].isnan(), expected)
    assert results["dx"][0, 4:8].isnan().all()
    assert not results["dx"][0, :4].isnan().any() and not results["dx"][1, 4:].isnan().any()


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced"])
@pytest.mark.parametrize("shape", [(2, 8, 3, 5), (2, 8, 3, 5, 2)], ids=["2d", "3d"])
def test_memory_format_is_kept(shape, layout):
    case = make_case(shape, 4, torch.float16, layout=layout, residual=True, activation="relu", device=DEVICE)
    with checked():
        results = run(case, OP)
    channels_last = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    expected = channels_last if layout == "channels_last" else torch.contiguous_format
    assert results["y"].is_contiguous(memory_format=expected)
    assert results["dx"].is_contiguous(memory_format=expected)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("absent", ["weight", "bias"])
def test_weight_or_bias_alone(absent, layout):
    case = make_case((2, 12, 5, 7), 3, layout=layout, activation="silu", device=DEVICE)
    with checked():
        assert_no_worse(replace(case, **{absent: None}), OP)


def test_float32_bias_beside_half_weight():
    case = make_case((2, 12, 5, 7), 3, torch.float16, activation="relu", device=DEVICE)
    with checked():
        assert_no_worse(replace(case, bias=case.bias.float()), OP)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_gradient_without_memory_of_its_own(layout):
    case = make_case((2, 8, 3, 5), 4, layout=layout, residual=True, activation="relu", device=DEVICE)
    with checked():
        assert_no_worse(replace(case, dy=torch.ones((), device=DEVICE).expand(2, 8, 3, 5)), OP)


@pytest.mark.parametrize("shape", [(2, 16, 4, 8), (2, 16, 25, 42)])
def test_addresses_that_are_no_multiple_of_16(shape):
    case = make_case(shape, 4, torch.float16, residual=True, activation="relu", device=DEVICE)

    def shifted(t):
        memory = torch.empty(t.numel() + 1, dtype=t.dtype, device=DEVICE)
        return memory[1:].copy_(t.flatten()).view(t.shape)

    with checked():
        assert_no_worse(case, OP)
        assert_no_worse(replace(case, x=shifted(case.x), residual=shifted(case.residual), dy=shifted(case.dy)), OP)
