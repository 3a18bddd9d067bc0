import pytest

pytest.importorskip("mmengine")
import torch
from mmengine.optim import build_optim_wrapper

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def build(dtype=None, **more):
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 2)
    optimizer = {"type": "SGD", "lr": 0.5}
    wrapper = build_optim_wrapper(
        model, {"type": "DeviceAmpOptimWrapper", "dtype": dtype, "optimizer": optimizer, **more}
    )
    return model, wrapper


@pytest.mark.parametrize("dtype", [None, *DTYPES])
def test_a_step_on_the_cpu_is_torchs_own(dtype):
    model, wrapper = build(dtype)
    want = [p.detach().clone().requires_grad_() for p in model.parameters()]
    x = torch.randn(8, 4)
    with torch.autocast("cpu", DTYPES[dtype or "float16"]):
        loss = torch.nn.functional.linear(x, *want).float().square().mean()
    grads = torch.autograd.grad(loss, want)
    with wrapper.optim_context(model):
        y = model(x)
        assert y.dtype == DTYPES[dtype or "float16"]
        wrapper.update_params(y.float().square().mean())
    for got, old, grad in zip(model.parameters(), want, grads, strict=True):
        # float16's gradients were rounded when they were scaled.
        torch.testing.assert_close(got, old - 0.5 * grad, rtol=0, atol=2e-3)
        assert not got.equal(old)


def test_float16_leaves_out_a_step_whose_gradients_overflow_and_lowers_the_scale():
    model, wrapper = build("float16", loss_scale={"init_scale": 2.0**30})
    before = [p.detach().clone() for p in model.parameters()]
    with wrapper.optim_context(model):
        wrapper.update_params((model(torch.full((8, 4), 100.0)).float() * 1e4).square().mean())
    assert all(p.equal(old) for p, old in zip(model.parameters(), before, strict=True))
    assert wrapper.loss_scaler.get_scale() == 2.0**29


def test_a_fixed_scale_stays():
    model, wrapper = build("float16", loss_scale=8.0)
    with wrapper.optim_context(model):
        wrapper.update_params(model(torch.ones(1, 4)).float().sum())
    assert wrapper.loss_scaler.get_scale() == 8.0


@pytest.mark.parametrize(("first", "then"), [("float16", "float16"), ("float16", "bfloat16"), ("bfloat16", "float16")])
def test_checkpoints_go_from_one_dtype_to_another(first, then):
    wrapper = build(first, loss_scale=8.0)[1]
    state = wrapper.state_dict()
    assert ("loss_scaler" in state) == (first == "float16")
    other = build(then, loss_scale=4.0)[1]
    other.load_state_dict(state)
    assert other.loss_scaler.get_scale() == {"float16": 8.0 if first == then else 4.0, "bfloat16": 1.0}[then]


def test_another_dtype_is_refused():
    with pytest.raises(ValueError, match="one of float16, bfloat16, got 'float64'"):
        build("float64")
