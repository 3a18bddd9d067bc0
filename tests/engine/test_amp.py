import copy
import math

import pytest

pytest.importorskip("mmengine")
import torch
from mmengine.optim import build_optim_wrapper

from mmgn import FusedGN

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


def step(model, wrapper, x):
    with wrapper.optim_context(model):
        wrapper.update_params(model(x).float().square().mean())


def test_an_overflow_changes_no_bit_and_training_goes_on_through_a_checkpoint(tmp_path):
    def build_norm():
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), FusedGN(8, 2), torch.nn.Conv2d(8, 2, 1))
        optimizer = {"type": "AdamW", "lr": 0.01}
        scale = {"init_scale": 2.0**10, "growth_interval": 3}
        settings = {"type": "DeviceAmpOptimWrapper", "dtype": "float16", "optimizer": optimizer, "loss_scale": scale}
        return model, build_optim_wrapper(model, settings)

    model, wrapper = build_norm()
    x = torch.randn(2, 3, 6, 6)
    step(model, wrapper, x)
    before = copy.deepcopy((model.state_dict(), wrapper.optimizer.state_dict()["state"]))
    handle = model[2].register_forward_hook(lambda module, args, y: y * math.inf)
    step(model, wrapper, x)
    handle.remove()
    for old, new in zip(before, (model.state_dict(), wrapper.optimizer.state_dict()["state"]), strict=True):
        torch.testing.assert_close(new, old, rtol=0, atol=0)
    assert wrapper.loss_scaler.get_scale() == 2.0**9
    torch.save((model.state_dict(), wrapper.state_dict()), tmp_path / "x.pth")
    resumed, its = build_norm()
    weights, state = torch.load(tmp_path / "x.pth", weights_only=True)
    resumed.load_state_dict(weights)
    its.load_state_dict(state)
    for _ in range(4):
        step(model, wrapper, x)
        step(resumed, its, x)
    assert not before[0]["0.weight"].equal(model[0].weight)
    torch.testing.assert_close(resumed.state_dict(), model.state_dict(), rtol=0, atol=0)
    # Three updates after the overflow, it grows again.
    assert its.loss_scaler.get_scale() == wrapper.loss_scaler.get_scale() == 2.0**10
