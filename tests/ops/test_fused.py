"""The fused backend under what surrounds it in training; its numbers are the business of tests/ops/triton."""

import copy
import os
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mmgn import FusedGN, group_norm
from mmgn.testing import assert_no_worse, make_case
from mmgn.testing.poison import poisoned_empty

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="interprets on the CPU; CUDA has its own gate")


def fused(x, num_groups, weight=None, bias=None, eps=1e-5, *, activation="none", residual=None):
    return group_norm(x, num_groups, weight, bias, eps, activation=activation, residual=residual, backend="triton")


def leaves(case):
    return [t.clone().requires_grad_() for t in (case.x, case.weight, case.bias, case.residual) if t is not None]


def gradients(case, op, **options):
    inputs = leaves(case)
    x, weight, bias = inputs[:3]
    residual = inputs[3] if len(inputs) > 3 else None
    y = op(x, case.num_groups, weight, bias, activation=case.activation, residual=residual, **options)
    y.backward(case.dy)
    return [y.detach(), *(t.grad for t in inputs)]


@pytest.mark.parametrize("activation", ["none", "relu", "silu"])
@pytest.mark.parametrize("residual", [False, True])
def test_saves_no_more_than_it_needs(activation, residual):
    case = make_case((2, 8, 5, 5), 4, activation=activation, residual=residual)
    x, weight, bias, *rest = leaves(case)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        y = fused(x, 4, weight, bias, activation=activation, residual=rest[0] if rest else None)
    extra = {("relu", True): y, ("silu", True): rest[0] if rest else None}.get((activation, residual))
    expected = [x, weight, bias] + ([] if extra is None else [extra])
    assert [t.data_ptr() for t in saved[: len(expected)]] == [t.data_ptr() for t in expected]
    assert [(t.shape, t.dtype) for t in saved[len(expected) :]] == [((2, 4), torch.float32)] * 2


@pytest.mark.parametrize("wanted", range(16))
@pytest.mark.parametrize("activation", ["none", "relu", "silu"])
def test_makes_only_the_gradients_that_are_wanted(wanted, activation):
    case = make_case((2, 8, 5, 5), 4, activation=activation, residual=True)
    inputs = [t.clone().requires_grad_(bool(wanted >> i & 1)) for i, t in enumerate(leaves_of(case))]
    x, weight, bias, residual = inputs
    y = fused(x, 4, weight, bias, activation=activation, residual=residual)
    assert y.requires_grad == bool(wanted)
    if not wanted:
        return
    with poisoned_empty():
        y.backward(case.dy)
    every = gradients(case, fused)[1:]
    for t, gradient in zip(inputs, every, strict=True):
        assert (t.grad is None) if not t.requires_grad else torch.equal(t.grad, gradient)


def leaves_of(case):
    return [t.detach() for t in (case.x, case.weight, case.bias, case.residual)]


@pytest.mark.parametrize("residual", [False, True])
def test_checkpointing_gives_the_same_bits(residual):
    case = make_case((2, 8, 5, 5), 4, activation="relu", residual=residual)
    for reentrant in (False, True):

        def op(x, groups, weight, bias, *, activation, residual, reentrant=reentrant):
            return checkpoint(
                lambda *t: fused(t[0], groups, t[1], t[2], activation=activation, residual=t[3]),
                x,
                weight,
                bias,
                residual,
                use_reentrant=reentrant,
            )

        for ours, plain in zip(gradients(case, op), gradients(case, fused), strict=True):
            assert torch.equal(ours, plain)


def test_a_relu_in_place_behind_it_changes_nothing():
    case = make_case((2, 8, 5, 5), 4)

    def op(*args, activation, residual):
        return fused(*args).mul_(1).relu_()

    relu = make_case((2, 8, 5, 5), 4, activation="relu")
    for ours, want in zip(gradients(case, op), gradients(relu, fused), strict=True):
        torch.testing.assert_close(ours, want)


def test_a_result_that_is_needed_again_must_not_be_changed_in_place():
    # As with torch's own ReLU: told, never wrong.
    case = make_case((2, 8, 5, 5), 4, activation="relu", residual=True)
    x, weight, bias, residual = leaves(case)
    y = fused(x, 4, weight, bias, activation="relu", residual=residual)
    y.detach().mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast_keeps_dtype_and_format(dtype):
    x = torch.randn(2, 8, 5, 5).to(dtype, memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(8, requires_grad=True)
    with torch.autocast("cpu", dtype):
        y = fused(x, 4, weight)
    assert y.dtype == dtype
    assert y.is_contiguous(memory_format=torch.channels_last)
    y.sum().backward()
    assert x.grad.dtype == dtype
    assert weight.grad.dtype == torch.float32


def test_parameters_of_two_dtypes():
    case = make_case((2, 8, 5, 5), 4, torch.bfloat16, param_dtype=torch.float32, activation="relu")
    case.bias = case.bias.bfloat16()
    assert [t.dtype for t in gradients(case, fused)] == [torch.bfloat16] * 2 + [torch.float32, torch.bfloat16]


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "sliced"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_graph_breaks(layout, dynamic):
    case = make_case((2, 8, 5, 6), 4, layout=layout, activation="relu", residual=True)
    compiled = torch.compile(fused, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for ours, eager in zip(gradients(case, compiled), gradients(case, fused), strict=True):
        assert torch.equal(ours, eager)
        assert ours.stride() == eager.stride()


def test_inductor_runs_it():
    case = make_case((2, 8, 5, 6), 4, activation="silu")
    compiled = torch.compile(lambda x, *args, **options: fused(x + 1, *args, **options) * 2, fullgraph=True)
    eager = lambda x, *args, **options: fused(x + 1, *args, **options) * 2  # noqa: E731
    for ours, want in zip(gradients(case, compiled), gradients(case, eager), strict=True):
        torch.testing.assert_close(ours, want)


def test_the_second_derivative_is_refused_not_wrong():
    x = torch.randn(1, 8, 3, 3, requires_grad=True)
    (dx,) = torch.autograd.grad(fused(x, 4).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        dx.sum().backward()


def test_a_dy_of_any_strides():
    case = make_case((2, 8, 5, 6), 4, activation="relu")
    for dy in (torch.ones(()).expand(2, 8, 5, 6), case.dy.transpose(2, 3).contiguous().transpose(2, 3)):
        case.dy = dy
        assert_no_worse(case, fused)


def moved(t):
    """Return t at an address that is no multiple of 16, as a slice of a flat buffer has it."""
    return None if t is None else torch.cat([t.new_zeros(1), t.flatten()])[1:].view(t.shape)


def negated(t):
    """Return t as a negation that is pending."""
    return None if t is None else torch._neg_view(-t)


@pytest.mark.parametrize("change", [moved, negated])
@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_unaligned_and_negated_tensors_give_the_same_bits(change, activation):
    case = make_case((2, 8, 4, 4), 4, torch.float16, activation=activation, residual=True)
    want = gradients(case, fused)
    for name in ("x", "weight", "bias", "residual", "dy"):
        setattr(case, name, change(getattr(case, name)))
    assert case.x.data_ptr() % 16 or case.x.is_neg()

    def leaves(case):
        return [t.requires_grad_() for t in leaves_of(case)]

    x, weight, bias, residual = leaves(case)
    y = fused(x, 4, weight, bias, activation=activation, residual=residual)
    y.backward(case.dy)
    for ours, plain in zip([y, x.grad, weight.grad, bias.grad, residual.grad], want, strict=True):
        assert torch.equal(ours, plain)


def test_kernels_see_aligned_addresses_alone(monkeypatch):
    """At others Triton compiles a kernel of its own, whose sums need not have the same bits."""
    from mmgn.ops.triton import launcher

    seen = []
    step = launcher._Step.__call__
    monkeypatch.setattr(launcher._Step, "__call__", lambda self, tensors: seen.append(tensors) or step(self, tensors))
    case = make_case((2, 8, 3, 5), 4, torch.float16, activation="relu", residual=True)
    x, weight, bias, residual = (moved(t).requires_grad_() for t in leaves_of(case))
    fused(x, 4, weight, bias, activation="relu", residual=residual).backward(moved(case.dy))
    assert len(seen) == 2
    assert {name for tensors in seen for name, t in tensors.items() if t.data_ptr() % 16} == set()
    # The second of two samples of 72 bytes.
    x = torch.randn(2, 4, 3, 3, dtype=torch.float16)
    assert x[1:].data_ptr() % 16
    assert fused(x[1:], 4).equal(fused(x, 4)[1:])


def test_the_layer_trains_with_it(monkeypatch):
    """Two steps of a small network, whose norms take the kernels, are those of torch's own."""
    monkeypatch.setattr("mmgn.layers.group_norm.group_norm", lambda *a, **k: group_norm(*a, **k, backend="triton"))
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), FusedGN(8, 4, activation="relu"), nn.Conv2d(8, 4, 3))
    theirs = nn.Sequential(copy.deepcopy(ours[0]), nn.GroupNorm(4, 8), nn.ReLU(), copy.deepcopy(ours[2]))
    x = torch.randn(2, 3, 8, 8)
    for model in (ours, theirs):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for _ in range(2):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


RANK_OF_TWO = """
import copy, sys
import torch, torch.distributed as dist
from torch import nn
import mmgn
from mmgn.layers import group_norm as layer

layer.group_norm = lambda *a, **k: mmgn.group_norm(*a, **k, backend="triton")
dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=int(sys.argv[2]), world_size=2)
torch.manual_seed(0)
alone = nn.Sequential(nn.Conv2d(3, 8, 3), mmgn.FusedGN(8, 4, activation="relu"))
model = nn.parallel.DistributedDataParallel(copy.deepcopy(alone), static_graph=True)
x = torch.randn(2, 2, 3, 6, 6)
for _ in range(2):
    model.zero_grad()
    model(x[dist.get_rank()]).square().sum().backward()
(alone(x[0]).square().sum() / 2 + alone(x[1]).square().sum() / 2).backward()
for ours, want in zip(model.parameters(), alone.parameters()):
    torch.testing.assert_close(ours.grad, want.grad)
"""


def test_two_ranks_average_its_gradients(tmp_path):
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK_OF_TWO, str(tmp_path / "store"), str(rank)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "TRITON_INTERPRET": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [rank.communicate(timeout=300)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], errors
