"""NaN, inf, large means and groups without variance: what the fused kernels make of them, and torch.

A case is spoilt at one element, channel, group or sample. What is finite in torch's own composition is finite here, and
the rest is not: a NaN that leaks into a neighbour, or is lost in a mask, fails. So does a NaN that becomes an inf; an
inf may become NaN and the other way round, as sums meet inf - inf in another order. An infinite weight is held to the
formula instead: torch folds it into a scale and a shift, which are inf - inf where the formula is inf.
"""

import math
from dataclasses import fields, replace
from functools import partial

import pytest
import torch

pytest.importorskip("triton")

from mmgn import group_norm
from mmgn.ops import library, reference
from mmgn.testing import assert_no_worse, make_case, run
from mmgn.testing.oracle import RESULTS, eager
from mmgn.testing.poison import poisoned_empty

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FUSED, NATIVE = partial(group_norm, backend="triton"), partial(group_norm, backend="native")
REGIMES = ("as planned", "streamed", "streamed in small tiles")
LAYOUTS = ("contiguous", "channels_last")
ACTIVATIONS = ("none", "relu", "silu")
PLACES = {"element": (0, 5, 2, 3), "channel": (0, 5), "group": (0, slice(4, 8)), "sample": (0,)}

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton", "ignore:invalid value", "ignore:overflow")


def operator(x, num_groups, weight, bias, eps, *, activation, residual):
    return library.group_norm(x, weight, bias, residual, num_groups, eps, activation)[0]


def spoil(case, tensor, value, extent):
    """Write value into a part of one of a case's tensors: of weight and bias, into one channel."""
    spoilt = getattr(case, tensor)
    spoilt[5 if spoilt.dim() == 1 else PLACES[extent]] = value


def formula(case):
    """Return what the reference makes of a case in float64."""
    wide = {f.name: getattr(case, f.name) for f in fields(case)}
    x, weight, bias, residual, dy = (
        None if wide[k] is None else wide[k].double() for k in ("x", "weight", "bias", "residual", "dy")
    )
    y, mean, rstd = reference.forward(x, case.num_groups, weight, bias, case.eps, case.activation, residual)
    grads = reference.backward(dy, x, mean, rstd, weight, bias, case.activation, residual)
    return dict(zip(RESULTS, (y, *grads), strict=True))


def check_storm(op, tensor, value, extent, layout, activation, residual, dtype):
    case = make_case((2, 12, 5, 7), 3, dtype, layout=layout, activation=activation, residual=residual, device=DEVICE)
    spoil(case, tensor, value, extent)
    infinite_weight = tensor == "weight" and math.isinf(value)
    want = formula(case) if infinite_weight and op is not NATIVE else run(case, eager, torch.float64)
    with poisoned_empty():
        got = run(case, op)
    for name in RESULTS:
        if got[name] is None:
            continue
        assert torch.equal(got[name].isfinite(), want[name].isfinite()), name
        if math.isnan(value):
            assert torch.equal(got[name].isnan(), want[name].isnan()), name


STORM = {
    "tensor": ("x", "weight", "bias", "dy", "residual"),
    "value": (math.nan, math.inf, -math.inf),
    "extent": tuple(PLACES),
    "layout": LAYOUTS,
    "activation": ACTIVATIONS,
    "dtype": (torch.float32, torch.float16, torch.bfloat16),
}


@pytest.mark.pairwise("regime", **STORM, regime=REGIMES)
def test_nan_and_inf_go_where_they_go_in_torch(tensor, value, extent, layout, activation, dtype, regime):
    check_storm(FUSED, tensor, value, extent, layout, activation, tensor == "residual", dtype)


@pytest.mark.pairwise(**STORM)
def test_nan_and_inf_go_where_they_go_in_torch_natively(tensor, value, extent, layout, activation, dtype):
    check_storm(NATIVE, tensor, value, extent, layout, activation, tensor == "residual", dtype)


@pytest.mark.pairwise(**STORM | {"dtype": (torch.float64,)})
def test_nan_and_inf_go_where_they_go_in_torch_in_the_reference(tensor, value, extent, layout, activation, dtype):
    """In float64, which the kernels do not take, the operator computes the reference."""
    check_storm(operator, tensor, value, extent, layout, activation, tensor == "residual", dtype)


@pytest.mark.pairwise("regime", activation=ACTIVATIONS, value=(math.nan, math.inf), regime=REGIMES)
def test_a_channel_that_shares_its_rows_keeps_its_neighbours_gradients(activation, value, regime):
    """35 elements a channel: vectors of 16 bytes reach into the next one."""
    case = make_case((1, 12, 5, 7), 3, activation=activation, residual=True, device=DEVICE)
    whole = run(case, FUSED)
    case.dy[0, 5] = value
    got = run(case, FUSED)
    others = [c for c in range(12) if c != 5]
    for name in ("dw", "db"):
        assert torch.equal(got[name][others], whole[name][others]), name
        assert not got[name][5].isfinite()


@pytest.mark.pairwise("regime", layout=LAYOUTS, regime=REGIMES)
def test_what_float16_cannot_hold_is_inf_as_in_torch(layout, regime):
    case = make_case((2, 12, 5, 7), 3, torch.float16, layout=layout, param_dtype=torch.float32, device=DEVICE)
    case.weight.mul_(60000)
    truth, got = run(case, eager, torch.float64)["y"], run(case, FUSED)["y"]
    want = truth.half()
    assert want.isinf().any() and want.isfinite().any()
    # Half of the last step below 65504 is where rounding to inf begins.
    near = (truth.abs() - 65520).abs() < 1
    assert torch.equal(got.isinf() | near, want.isinf() | near)
    assert not got.isnan().any()


# Mean and spread of x: beyond them a dtype keeps no variance.
MEANS = ((torch.float32, 1e4, 1), (torch.float16, 1e3, 32), (torch.bfloat16, 100, 30))


def large_mean(shape, groups, layout, dtype, mean, spread):
    case = make_case(shape, groups, dtype, layout=layout, residual=True, activation="silu", device=DEVICE)
    case.x.copy_(make_case(shape, groups, torch.float64, device=DEVICE).x * spread + mean)
    return case


def of_rows(x, *args, **kwargs):
    """Compose torch's functions on x in NCHW: its CPU kernel for channels_last loses the variance, and no yardstick."""
    return eager(x.flatten(2).clone(), *args, **kwargs | {"residual": kwargs["residual"].flatten(2)}).view(x.shape)


@pytest.mark.pairwise(
    "regime",
    shape=(((2, 16, 7, 7), 4), ((1, 12, 33, 35), 4), ((2, 8, 16, 16), 8), ((3, 32, 1, 1), 4)),
    layout=LAYOUTS,
    kind=MEANS,
    regime=REGIMES,
)
def test_large_means_keep_full_accuracy(shape, layout, kind, regime):
    assert_no_worse(large_mean(*shape, layout, *kind), FUSED, of_rows)


@pytest.mark.parametrize("kind", MEANS, ids=lambda kind: str(kind[0]))
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [((2, 16, 7, 7), 4), ((1, 8, 64, 84), 2), ((3, 32, 1, 1), 4)], ids=str)
def test_large_means_keep_full_accuracy_natively(shape, layout, kind):
    assert_no_worse(large_mean(*shape, layout, *kind), NATIVE, of_rows)


@pytest.mark.parametrize("op", [FUSED, NATIVE], ids=["fused", "native"])
@pytest.mark.pairwise(
    "regime",
    shape=((2, 12, 5, 7), (1, 12, 1, 1), (3, 12, 16, 16), (0, 12, 4, 4)),
    groups=(3, 12),
    layout=LAYOUTS,
    value=(0.0, 1.0, 1e-42, -1e4, 1e18, 1e25),
    eps=(1e-5, 1e-12),
    regime=REGIMES,
)
def test_a_group_without_variance_has_finite_gradients(op, shape, groups, layout, value, eps, regime):
    case = make_case(shape, groups, layout=layout, activation="relu", residual=True, device=DEVICE)
    case.x.fill_(value)
    case = replace(case, eps=eps)
    want, got = run(case, of_rows), run(case, op)
    for name in RESULTS:
        finite = got[name].isfinite().all()
        # From 1e18 on, torch's dx overflows on its way.
        assert finite or (op is NATIVE and value >= 1e18 and not want[name].isfinite().all()), name
    if abs(value) <= 1e4:
        assert_no_worse(case, op, of_rows)


@pytest.mark.pairwise("regime", layout=LAYOUTS, value=(0.0, 2.0), regime=REGIMES)
def test_eps_0_without_variance_is_nan_as_in_torch(layout, value, regime):
    case = replace(make_case((2, 12, 5, 7), 3, layout=layout, device=DEVICE), eps=0.0)
    case.x[0, 4:8] = value
    want, got = run(case, eager, torch.float64), run(case, FUSED)
    for name in ("y", "dx", "dw", "db"):
        assert torch.equal(got[name].isfinite(), want[name].isfinite()), name


@pytest.mark.pairwise("regime", layout=LAYOUTS, kind=("1e18", "subnormal", "outlier"), regime=REGIMES)
def test_extreme_magnitudes(layout, kind, regime):
    case = make_case((2, 12, 5, 7), 3, layout=layout, activation="relu", residual=True, device=DEVICE)
    if kind == "outlier":
        case.x.zero_()[0, 5, 2, 3] = 1e4
    else:
        case.x.mul_(1e18 if kind == "1e18" else 1e-41)
    assert_no_worse(case, FUSED, of_rows)
