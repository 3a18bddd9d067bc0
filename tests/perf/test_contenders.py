import importlib.util

import pytest
import torch

from mmgn.perf import contenders
from mmgn.perf.contenders import Cell, Compiling, UnavailableError, builders
from mmgn.perf.shapes import Shape

CPU = torch.device("cpu")
NORMS = ("mmgn", "eager", "eager autocast")


PLACES = {
    "relu": Shape("small", 2, 64, 6, 5),
    "none": Shape("small", 2, 64, 6, 5, activation="none"),
    "residual": Shape("small", 2, 64, 6, 5, residual=True),
}


def cell(layout="contiguous", dtype="float16", place="relu"):
    return Cell.draw(PLACES[place], layout, dtype, CPU)


def expected(c, dtype):
    weight, bias = c.params(dtype)
    weight, bias = weight.double(), bias.double()
    y = torch.group_norm(c.x.double(), 32, weight, bias)
    if c.residual is not None:
        y = y + c.residual.double()
    return y if c.place.activation == "none" else y.relu()


@pytest.mark.parametrize("dtype", contenders.DTYPES)
@pytest.mark.parametrize("layout", contenders.LAYOUTS)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", NORMS)
def test_norms_compute_one_function_in_one_contract(name, place, layout, dtype):
    c = cell(layout, dtype, place)
    build = builders("native", Compiling(0))[name]
    if (name, dtype) == ("eager autocast", "float32"):
        with pytest.raises(UnavailableError, match="unchanged"):
            build(c)
        return
    layer, params = build(c)
    y = layer(c.x, c.residual)
    assert y.dtype == c.x.dtype
    assert y.is_contiguous(memory_format=contenders.LAYOUTS[layout])
    bound = 8 * torch.finfo(c.x.dtype).eps
    torch.testing.assert_close(y.double(), expected(c, params[0].dtype), rtol=bound, atol=bound)
    grads = torch.autograd.grad(y, (*c.inputs, *params), c.dy)
    assert [g.shape for g in grads] == [*[c.x.shape] * len(c.inputs), (64,), (64,)]
    assert all(g.abs().sum() > 0 for g in grads)


@pytest.mark.parametrize("layout", contenders.LAYOUTS)
def test_frozen_bn_trains_nothing_and_keeps_the_layout(layout):
    c = cell(layout, place="residual")
    layer, params = contenders.frozen_bn(c)
    y = layer(c.x, c.residual)
    assert params == ()
    assert y.is_contiguous(memory_format=contenders.LAYOUTS[layout])
    torch.testing.assert_close(y, (c.x / (1 + 1e-5) ** 0.5 + c.residual).relu(), rtol=2e-3, atol=2e-3)


def test_compiling_computes_the_same_and_counts_its_seconds():
    compiling = Compiling(100)
    c = cell(dtype="float32", place="residual")
    layer, params = contenders.compiled(c, compiling)
    assert compiling.spent > 0
    torch.testing.assert_close(layer(c.x, c.residual).double(), expected(c, params[0].dtype), rtol=1e-5, atol=1e-5)


def test_spent_seconds_are_the_reason():
    with pytest.raises(UnavailableError, match=r"the 3 s for torch\.compile were spent"):
        contenders.compiled(cell(), Compiling(3, spent=3.5))


@pytest.mark.skipif(importlib.util.find_spec("apex") is not None, reason="Apex is there")
def test_absent_apex_is_said():
    with pytest.raises(UnavailableError, match="No module named 'apex'"):
        contenders.apex(cell("channels_last"))
