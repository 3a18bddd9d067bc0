import importlib
import math

import pytest
import torch
import torchvision
from torch.nn.functional import conv2d

from mmgn.compat import mmcv_ops

pytest.importorskip("mmcv")
mmcv_ops.install()
if mmcv_ops.served_ops()["nms"] != "torchvision":
    pytest.skip("the installed mmcv is compiled", allow_module_level=True)
mmcv = importlib.import_module("mmcv.ops")
ext = importlib.import_module("mmcv._ext")

GEOMETRIES = [
    {"stride": 1, "padding": 1, "dilation": 1, "groups": 1, "deform_groups": 1},
    {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2, "deform_groups": 1},
    {"stride": (1, 2), "padding": (2, 0), "dilation": (2, 1), "groups": 1, "deform_groups": 2},
    {"stride": 1, "padding": 1, "dilation": 1, "groups": 2, "deform_groups": 4},
]
KERNEL = (3, 2)


def pair(value):
    return value if isinstance(value, tuple) else (value, value)


def make(geometry, dtype=torch.float64, batch=2):
    """Input, offset, mask, weight, bias; no sample lies on a kink of the bilinear kernel."""
    generator = torch.Generator().manual_seed(0)

    def rand(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    size = [
        (extent + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
        for extent, pad, dilation, kernel, stride in zip(
            (6, 7),
            *(pair(geometry[k]) for k in ("padding", "dilation")),
            KERNEL,
            pair(geometry["stride"]),
            strict=True,
        )
    ]
    taps = geometry["deform_groups"] * KERNEL[0] * KERNEL[1]
    x = rand(batch, 4, 6, 7) - 0.5
    whole = (rand(batch, 2 * taps, *size) * 5 - 2).floor()
    offset = whole + 0.1 + 0.8 * rand(batch, 2 * taps, *size)
    mask = rand(batch, taps, *size)
    weight = rand(6, 4 // geometry["groups"], *KERNEL) - 0.5
    return [t.to(dtype) for t in (x, offset, mask, weight, rand(6))]


def sample(plane, y, x):
    height, width = plane.shape
    total = 0.0
    for i in (math.floor(y), math.floor(y) + 1):
        for j in (math.floor(x), math.floor(x) + 1):
            if 0 <= i < height and 0 <= j < width:
                total += plane[i, j].item() * (1 - abs(y - i)) * (1 - abs(x - j))
    return total


def reference(x, offset, mask, weight, bias, stride, padding, dilation, groups, deform_groups):
    """Eq. (2) of arXiv 1703.06211 and (1) of arXiv 1811.11168: unfold the samples, then convolve 1 x 1."""
    (sh, sw), (ph, pw), (dh, dw) = pair(stride), pair(padding), pair(dilation)
    n, channels = x.shape[:2]
    out_h, out_w = offset.shape[2:]
    kh, kw = weight.shape[2:]
    columns = x.new_zeros(n, channels, kh * kw, out_h, out_w)
    for b in range(n):
        for c in range(channels):
            group = c // (channels // deform_groups)
            for tap in range(kh * kw):
                at = group * kh * kw + tap
                for i in range(out_h):
                    for j in range(out_w):
                        y = i * sh - ph + tap // kw * dh + offset[b, 2 * at, i, j].item()
                        z = j * sw - pw + tap % kw * dw + offset[b, 2 * at + 1, i, j].item()
                        value = sample(x[b, c], y, z)
                        columns[b, c, tap, i, j] = value if mask is None else value * mask[b, at, i, j]
    kernel = weight.reshape(weight.shape[0], -1, 1, 1)
    return conv2d(columns.reshape(n, -1, out_h, out_w), kernel, bias, groups=groups)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_v1_matches_the_loop(geometry):
    x, offset, _, weight, _ = make(geometry)
    out = mmcv.deform_conv2d(x, offset, weight, *geometry.values())
    torch.testing.assert_close(out, reference(x, offset, None, weight, None, **geometry))


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("with_bias", [True, False])
def test_v2_matches_the_loop(geometry, with_bias):
    x, offset, mask, weight, bias = make(geometry)
    bias = bias if with_bias else None
    out = mmcv.modulated_deform_conv2d(x, offset, mask, weight, bias, *geometry.values())
    torch.testing.assert_close(out, reference(x, offset, mask, weight, bias, **geometry))


@pytest.mark.parametrize("geometry", GEOMETRIES[1:3])
def test_v1_gradients(geometry):
    x, offset, _, weight, _ = make(geometry, batch=1)
    inputs = [t.requires_grad_() for t in (x, offset, weight)]
    assert torch.autograd.gradcheck(lambda *t: mmcv.deform_conv2d(*t, *geometry.values()), inputs)


@pytest.mark.parametrize("geometry", GEOMETRIES[1:3])
@pytest.mark.parametrize("with_bias", [True, False])
def test_v2_gradients(geometry, with_bias):
    x, offset, mask, weight, bias = make(geometry, batch=1)
    inputs = [t.requires_grad_() for t in ((x, offset, mask, weight, bias) if with_bias else (x, offset, mask, weight))]

    def run(x, offset, mask, weight, bias=None):
        return mmcv.modulated_deform_conv2d(x, offset, mask, weight, bias, *geometry.values())

    assert torch.autograd.gradcheck(run, inputs)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_gradients_are_torchvisions(geometry):
    ours, theirs = ([t.requires_grad_() for t in make(geometry)] for _ in range(2))
    out = mmcv.modulated_deform_conv2d(*ours, *geometry.values())
    x, offset, mask, weight, bias = theirs
    where = (geometry["stride"], geometry["padding"], geometry["dilation"])
    expected = torchvision.ops.deform_conv2d(x, offset, weight, bias, *where, mask)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=out.dtype)
    out.backward(grad)
    expected.backward(grad)
    torch.testing.assert_close(out, expected)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


def test_only_some_gradients():
    x, offset, _, weight, _ = make(GEOMETRIES[0])
    full = [t.clone().requires_grad_() for t in (x, offset, weight)]
    mmcv.deform_conv2d(*full, *GEOMETRIES[0].values()).square().sum().backward()
    for wanted in range(3):
        some = [t.clone().requires_grad_(i == wanted) for i, t in enumerate((x, offset, weight))]
        mmcv.deform_conv2d(*some, *GEOMETRIES[0].values()).square().sum().backward()
        torch.testing.assert_close(some[wanted].grad, full[wanted].grad)


def test_weight_gradient_is_scaled_and_added():
    x, offset, _, weight, _ = make(GEOMETRIES[0])
    geometry = {"kW": 2, "kH": 3, "dW": 1, "dH": 1, "padW": 1, "padH": 1, "dilationW": 1, "dilationH": 1}
    geometry.update(group=1, deformable_group=1, im2col_step=2)
    grad = torch.rand(2, 6, *offset.shape[2:], dtype=torch.float64)
    empty = x.new_empty(0)
    once, onto = torch.zeros_like(weight), torch.ones_like(weight)
    ext.deform_conv_backward_parameters(x, offset, grad, once, empty, empty, scale=1, **geometry)
    ext.deform_conv_backward_parameters(x, offset, grad, onto, empty, empty, scale=0.5, **geometry)
    torch.testing.assert_close(onto, 1 + 0.5 * once)
    assert once.abs().max() > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once(dtype):
    narrow = [t.requires_grad_() for t in make(GEOMETRIES[1], dtype)]
    wide = [t.detach().float().requires_grad_() for t in narrow]
    out = mmcv.modulated_deform_conv2d(*narrow, *GEOMETRIES[1].values())
    wide_out = mmcv.modulated_deform_conv2d(*wide, *GEOMETRIES[1].values())
    assert torch.equal(out, wide_out.to(dtype))
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    out.backward(grad)
    wide_out.backward(grad.float())
    for mine, other in zip(narrow, wide, strict=True):
        assert torch.equal(mine.grad, other.grad.to(dtype))


def test_untrained_layers_are_plain_convolutions():
    # Their own convolution for offsets and masks starts at zero: no offset, and a mask of sigmoid(0).
    x = torch.randn(2, 4, 6, 7, generator=torch.Generator().manual_seed(0)).to(memory_format=torch.channels_last)
    v1 = mmcv.DeformConv2dPack(4, 6, 3, padding=1, groups=2)
    torch.testing.assert_close(v1(x), conv2d(x, v1.weight, padding=1, groups=2))
    v2 = mmcv.ModulatedDeformConv2dPack(4, 6, 3, padding=1, bias=True)
    torch.testing.assert_close(v2(x), 0.5 * conv2d(x, v2.weight, padding=1) + v2.bias[:, None, None])
    v2(x).sum().backward()
    assert v2.conv_offset.weight.grad.abs().max() > 0
