import copy
import itertools
import math

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from mmgn import group_norm
from mmgn.ops import explain
from mmgn.testing import assert_no_worse, make_case

HALF = (torch.float16, torch.bfloat16)
ACTIVATIONS = ("none", "relu", "silu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *HALF], ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced", "expanded"])
@pytest.mark.parametrize(("activation", "residual"), list(itertools.product(ACTIVATIONS, (False, True))))
def test_output_and_gradients_match_the_oracle(dtype, layout, activation, residual):
    case = make_case((2, 32, 7, 9), 8, dtype, layout=layout, activation=activation, residual=residual)
    assert_no_worse(case, group_norm)


@pytest.mark.parametrize(
    ("shape", "num_groups"),
    [
        ((2, 8), 4),
        ((3, 8, 1, 1), 4),
        ((1, 8, 1, 1), 8),  # a single value per group: y is the bias
        ((2, 8, 5), 1),
        ((2, 8, 7, 7), 8),
        ((1, 12, 3, 5, 2), 6),
        ((2, 6, 2, 3, 2, 2), 3),
        ((0, 8, 14, 14), 4),
        ((2, 7, 13, 1), 7),
        ((1, 64, 25, 42), 32),
    ],
)
def test_every_rank_and_group_count(shape, num_groups):
    assert_no_worse(make_case(shape, num_groups, residual=True, activation="relu"), group_norm)


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_float32_parameters_beside_half_activations(dtype):
    case = make_case((2, 32, 6, 6), 8, dtype, param_dtype=torch.float32, activation="relu")
    x = case.x.requires_grad_()
    weight, bias = case.weight.requires_grad_(), case.bias.requires_grad_()
    y = group_norm(x, 8, weight, bias, activation="relu")
    y.backward(case.dy)
    assert (y.dtype, x.grad.dtype, weight.grad.dtype, bias.grad.dtype) == (dtype, dtype, *[torch.float32] * 2)
    exact = torch.relu(torch.group_norm(x.double(), 8, weight.double(), bias.double()))
    torch.testing.assert_close(y.double(), exact, rtol=torch.finfo(dtype).eps, atol=torch.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize(
    "weight, bias", [("float32", "half"), ("half", "float32"), (None, "float32"), ("float32", None)], ids=str
)
def test_half_activations_beside_parameters_of_two_kinds(dtype, weight, bias):
    x = torch.randn(2, 8, 3, 3, dtype=dtype, requires_grad=True)
    kinds = {"float32": torch.float32, "half": dtype}
    leaves = [
        None if kind is None else torch.randn(8, dtype=kinds[kind], requires_grad=True) for kind in (weight, bias)
    ]
    y = group_norm(x, 4, *leaves)
    y.backward(torch.ones_like(y))
    exact = torch.group_norm(x.double(), 4, *(None if leaf is None else leaf.double() for leaf in leaves))
    torch.testing.assert_close(y.double(), exact, rtol=torch.finfo(dtype).eps, atol=torch.finfo(dtype).eps)
    assert all(leaf is None or leaf.grad.dtype is leaf.dtype for leaf in (x, *leaves))


@pytest.mark.parametrize("shape", [(2, 8, 0), (2, 8, 3, 0), (0, 8, 4, 4), (2, 0, 4), (0, 0)], ids=str)
def test_no_elements(shape):
    x = torch.empty(shape, requires_grad=True)
    weight, bias = (torch.randn(shape[1], requires_grad=True) for _ in range(2))
    y = group_norm(x, 4, weight, bias, activation="relu", residual=torch.empty(shape))
    y.sum().backward()
    assert y.shape == x.grad.shape == shape
    assert not weight.grad.any() and not bias.grad.any()


def test_large_mean_keeps_the_variance():
    assert_no_worse(make_case((2, 32, 16, 16), 8, offset=1e3), group_norm)


def test_without_affine():
    assert_no_worse(make_case((2, 16, 5, 5), 4, affine=False, activation="silu", residual=True), group_norm)


@pytest.mark.parametrize(
    ("rank", "memory_format"), [(4, torch.channels_last), (5, torch.channels_last_3d)], ids=["2d", "3d"]
)
def test_channels_last_is_kept(rank, memory_format):
    x = torch.randn(2, 8, *[5] * (rank - 2)).to(memory_format=memory_format).requires_grad_()
    y = group_norm(x, 4, activation="relu")
    y.backward(torch.randn_like(y))
    assert y.is_contiguous(memory_format=memory_format)
    assert x.grad.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_autocast_keeps_dtype(dtype):
    x = torch.randn(2, 16, 6, 6, dtype=dtype)
    weight, bias = torch.randn(16), torch.randn(16)
    plain = group_norm(x, 4, weight, bias, activation="silu")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = group_norm(x, 4, weight, bias, activation="silu")
    assert y.dtype == dtype
    assert torch.equal(y, plain)


def test_float32_input_stays_float32_under_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert group_norm(torch.randn(2, 8, 4, 4), 4).dtype == torch.float32


def test_inputs_are_left_alone_and_output_may_change_in_place():
    case = make_case((2, 16, 5, 5), 4, residual=True, activation="relu")
    before = copy.deepcopy(case)
    x, residual = case.x.requires_grad_(), case.residual.requires_grad_()
    y = group_norm(x, 4, case.weight, case.bias, residual=residual)
    # A network's in-place ReLU right after the norm.
    torch.relu_(y).backward(case.dy)
    assert torch.equal(x, before.x)
    assert torch.equal(residual, before.residual)
    assert torch.equal(residual.grad, case.dy * (y > 0))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradcheck(activation):
    case = make_case((2, 6, 3, 3), 3, torch.float64, residual=True)
    inputs = [t.requires_grad_() for t in (case.x, case.weight, case.bias, case.residual)]
    assert torch.autograd.gradcheck(
        lambda x, w, b, r: group_norm(x, 3, w, b, activation=activation, residual=r), inputs
    )


def test_activation_checkpointing_gives_the_same_gradients():
    case = make_case((2, 16, 6, 6), 4, activation="relu")
    grads = []
    for wrap in (lambda f, x: f(x), lambda f, x: checkpoint(f, x, use_reentrant=False)):
        x = case.x.clone().requires_grad_()
        wrap(lambda t: group_norm(t, 4, case.weight, case.bias, activation="relu"), x).backward(case.dy)
        grads.append(x.grad)
    assert torch.equal(*grads)


def test_auto_explains_itself():
    choice = explain(torch.zeros(1, 8, 4, 4))
    assert choice.backend == "native"
    assert "cpu" in choice.reason
    assert explain(torch.zeros(1, 8, 4, 4), "native") == ("native", "asked for explicitly")


def test_meta_tensors_pass_through():
    assert group_norm(torch.empty(2, 8, 4, 4, device="meta"), 4, activation="silu").shape == (2, 8, 4, 4)


X = torch.zeros(2, 24, 4, 4)


@pytest.mark.parametrize(
    ("error", "match", "args", "kwargs"),
    [
        (ValueError, r"got 24 and 32; use num_groups in \(1, 2, 3, 4, 6, 8, 12, 24\)", (X, 32), {}),
        (ValueError, "positive integer, got 0", (X, 0), {}),
        (ValueError, "positive integer, got 2.0", (X, 2.0), {}),
        (ValueError, r"got \(24,\)", (torch.zeros(24), 4), {}),
        (TypeError, "floating point.*got torch.int64", (X.long(), 4), {}),
        (TypeError, "floating point.*got torch.complex64", (X.cfloat(), 4), {}),
        (TypeError, "must be a torch.Tensor.*got list", ([[1.0]], 1), {}),
        (ValueError, r"weight must have shape \(24,\).*got \(8,\)", (X, 4, torch.ones(8)), {}),
        (ValueError, r"bias must have shape \(24,\)", (X, 4, None, torch.ones(24, 1)), {}),
        (TypeError, "weight must be float32.*got torch.float16", (X, 4, torch.ones(24).half()), {}),
        (TypeError, "weight must be a torch.Tensor.*got list", (X, 4, [1.0] * 24), {}),
        (TypeError, "residual must be a torch.Tensor.*got float", (X, 4), {"residual": 1.0}),
        (TypeError, "on meta", (X, 4, torch.ones(24, device="meta")), {}),
        (ValueError, r"residual must have x's shape.*got \(24, 4, 4\)", (X, 4), {"residual": X[0]}),
        (TypeError, "residual must have x's dtype.*bfloat16", (X, 4), {"residual": X.bfloat16()}),
        (ValueError, "eps must be 0 or more and finite, got -1e-05", (X, 4, None, None, -1e-5), {}),
        (ValueError, "eps must be 0 or more and finite, got nan", (X, 4, None, None, math.nan), {}),
        (TypeError, "eps must be a number, got str", (X, 4, None, None, "1e-5"), {}),
        (TypeError, "floating point.*got torch.float8_e5m2", (X.to(torch.float8_e5m2), 4), {}),
        (ValueError, "activation must be one of.*got 'gelu'", (X, 4), {"activation": "gelu"}),
        (ValueError, "backend must be one of.*got 'cuda'", (X, 4), {"backend": "cuda"}),
    ],
)
def test_wrong_input_tells_value_and_way_out(error, match, args, kwargs):
    with pytest.raises(error, match=match):
        group_norm(*args, **kwargs)
