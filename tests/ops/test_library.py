import itertools

import pytest
import torch

from mmgn.ops import library
from mmgn.testing import assert_no_worse, make_case


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Fill uninitialised memory with NaN, so that an unwritten output cannot pass."""
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)


def fused(x, num_groups, weight, bias, eps, *, activation, residual):
    return library.group_norm(x, weight, bias, residual, num_groups, eps, activation)[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("activation", "residual"), list(itertools.product(("none", "relu", "silu"), (False, True))))
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced"])
def test_operator_matches_the_oracle(dtype, activation, residual, layout):
    case = make_case((2, 16, 5, 7), 4, dtype, layout=layout, activation=activation, residual=residual)
    assert_no_worse(case, fused)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced"])
@pytest.mark.parametrize("activation", ["none", "relu", "silu"])
def test_opcheck(affine, layout, activation):
    case = make_case((2, 8, 4, 3), 4, layout=layout, affine=affine, residual=True)
    inputs = [t if t is None else t.requires_grad_() for t in (case.x, case.weight, case.bias, case.residual)]
    torch.library.opcheck(torch.ops.mmgn.group_norm.default, (*inputs, 4, 1e-5, activation))
    y, mean, rstd = library.group_norm(*inputs, 4, 1e-5, activation)
    saved = {"none": None, "relu": y, "silu": case.residual}[activation]
    plain = [t if t is None else t.detach() for t in (*inputs[:3], saved, mean, rstd)]
    torch.library.opcheck(
        torch.ops.mmgn.group_norm_backward.default,
        (case.dy, *plain, activation, True, [True, affine, False, True]),
    )


@pytest.mark.parametrize("activation", ["none", "relu", "silu"])
def test_gradcheck(activation):
    case = make_case((2, 6, 3, 3), 3, torch.float64, residual=True)
    inputs = [t.requires_grad_() for t in (case.x, case.weight, case.bias, case.residual)]
    assert torch.autograd.gradcheck(lambda *t: library.group_norm(*t, 3, 1e-5, activation)[0], inputs)


def test_unwanted_gradients_are_not_made():
    case = make_case((2, 8, 4, 4), 4)
    x = case.x.requires_grad_()
    fused(x, 4, case.weight, case.bias, 1e-5, activation="relu", residual=None).backward(case.dy)
    assert x.grad is not None
    assert case.weight.grad is None
    assert case.bias.grad is None


def test_compiles_without_graph_breaks_for_any_size():
    compiled = torch.compile(fused, fullgraph=True, dynamic=True, backend="aot_eager")
    for size in (4, 6):
        assert_no_worse(make_case((2, 8, size, size), 4, residual=True, activation="relu"), compiled)
