"""Offsets past 2**31: the kernels themselves, interpreted on memory that takes no room until it is written.

Of each launch the first and the last two programs run; those of them that come to the tensor's last elements must find
them. All other memory is zero, and stands for programs that did not run: zero is what they would have left.
"""

import builtins
import itertools
import mmap
from unittest import mock

import pytest
import torch

pytest.importorskip("triton", minversion="3.3")

from triton.runtime import interpreter

from mmgn.ops.triton import launcher, tiling
from mmgn.ops.triton.plan import plan_backward, plan_forward
from mmgn.ops.triton.problem import ITEMSIZE, Device, Problem
from mmgn.testing.interpreter import record_traffic

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason="needs the interpreter; on a GPU kernels are compiled"
)

MAP_NORESERVE = 0x4000
# N, C, S, G: many samples, one sample, one group, N*C past 2**31 as well, and N*G.
MANY, ONE, WIDE, NARROW, POINTS, PAIRS = (
    (2**19 + 1, 64, 64, 16),
    (1, 2048, 2**20 + 63, 1024),
    (1, 8, 2**28 + 3, 1),
    (2**25 + 1, 64, 2, 16),
    (2**25 + 1, 64, 1, 16),
    (2**26 + 1, 64, 1, 32),
)


def sparse(buffer):
    """Return a tensor of zeros of which only what is written takes memory."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
    try:
        memory = mmap.mmap(-1, buffer.numel * ITEMSIZE[buffer.dtype], flags=flags)
    except OSError as error:
        pytest.skip(f"no sparse memory: {error}")
    return torch.frombuffer(memory, dtype=getattr(torch, buffer.dtype))


def ends(*arguments):
    """Stand for ``range`` in the interpreter's loop over a grid."""
    everything = builtins.range(*arguments)
    return everything if len(everything) < 1000 else [*everything[:2], *everything[-2:]]


@pytest.fixture
def ends_only(monkeypatch):
    monkeypatch.setattr(interpreter, "range", ends, raising=False)
    # It copies every tensor onto itself.
    monkeypatch.setattr(interpreter.GridExecutor, "_restore_args_dev", mock.Mock())


CASES = [
    *itertools.product((MANY, NARROW), ("contiguous", "channels_last"), ("whole", "split")),
    *itertools.product((ONE,), ("contiguous", "channels_last"), ("split",)),
    (WIDE, "contiguous", "split"),
    *itertools.product((POINTS,), ("channels_last",), ("whole", "split")),
    # Split, a program a group, they would be more than a grid has, and more than any memory.
    (PAIRS, "channels_last", "whole"),
]


@pytest.mark.parametrize(("size", "layout", "regime"), CASES)
def test_the_last_elements_of_a_huge_tensor(size, layout, regime, ends_only, monkeypatch):
    if regime == "split":
        monkeypatch.setattr(tiling, "WHOLE_ELEMENTS", 0)
    n, c, s, groups = size
    problem = Problem(n, c, s, groups, layout=layout)
    assert problem.numel > 2**31
    forward, backward = plan_forward(problem, Device()), plan_backward(problem, Device())
    assert forward.regime == backward.regime == regime

    def last(t):
        """Return elements of the last group, the tensor's last one among them."""
        return t[-min(problem.m, 32) :] if layout == "contiguous" else t.view(n, s, c)[-1, -16:, -problem.d :]

    tensors = {name: sparse(buffer) for name, buffer in forward.buffers.items()}
    tensors |= {name: sparse(b) for name, b in backward.buffers.items() if name not in tensors or name == "partials"}
    torch.manual_seed(0)
    x, dy = (torch.randn(last(tensors["x"]).shape, dtype=torch.float16) for _ in range(2))
    last(tensors["x"]).copy_(x)
    last(tensors["dy"]).copy_(dy)
    tensors["weight"].fill_(2)
    tensors["bias"].fill_(0.5)
    partials = sparse(forward.buffers["partials"]) if "partials" in forward.buffers else None
    with record_traffic():
        launcher.Call(forward).run(tensors if partials is None else tensors | {"partials": partials}, tensors["x"])
        launcher.Call(backward).run(tensors, tensors["x"])

    # The group's other elements of x and dy are zero.
    x, dy, m = x.double(), dy.double(), problem.m
    mean = x.sum() / m
    rstd = ((x.square().sum() / m - mean**2) + problem.eps).rsqrt()
    x_hat = (x - mean) * rstd
    dx = rstd * (2 * dy - 2 * dy.sum() / m - x_hat * (2 * (dy * x_hat).sum() / m))
    for name, truth in (("y", 2 * x_hat + 0.5), ("dx", dx)):
        actual = last(tensors[name]).double()
        assert (actual - truth).abs().max() <= 1e-3 * truth.abs().max(), name
