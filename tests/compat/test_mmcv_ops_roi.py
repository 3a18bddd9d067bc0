import importlib
import math

import pytest
import torch
import torchvision

from mmgn.compat import mmcv_ops

pytest.importorskip("mmcv")
mmcv_ops.install()
if mmcv_ops.served_ops()["nms"] != "torchvision":
    pytest.skip("the installed mmcv is compiled", allow_module_level=True)
mmcv = importlib.import_module("mmcv.ops")

# Inside, across a border, wholly outside, small, without area, and of the second image.
ROIS = torch.tensor(
    [
        [0, 3.3, 2.1, 29.7, 21.4],
        [0, -9.0, -5.5, 12.2, 7.9],
        [1, 60.0, 50.0, 75.0, 66.0],
        [1, 10.2, 10.4, 11.0, 11.1],
        [0, 17.0, 9.0, 17.0, 9.0],
        [1, 0.0, 0.0, 39.0, 27.0],
    ],
    dtype=torch.float64,
)


def features(dtype=torch.float64):
    return torch.randn(2, 3, 7, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


def bilinear(plane, y, x):
    height, width = plane.shape
    if y < -1 or y > height or x < -1 or x > width:
        return 0.0
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    dy, dx = y - top, x - left
    upper = plane[top, left] * (1 - dx) + plane[top, right] * dx
    lower = plane[bottom, left] * (1 - dx) + plane[bottom, right] * dx
    return upper * (1 - dy) + lower * dy


def reference_roi_align(x, rois, size, scale, ratio, aligned):
    """mmcv/ops/csrc/common/cuda/roi_align_cuda_kernel.cuh with pool_mode 1, in Python."""
    out = x.new_zeros(len(rois), x.shape[1], *size)
    shift = 0.5 if aligned else 0.0
    for k, (image, *corners) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = (corner * scale - shift for corner in corners)
        w, h = (x2 - x1, y2 - y1) if aligned else (max(x2 - x1, 1.0), max(y2 - y1, 1.0))
        bin_h, bin_w = h / size[0], w / size[1]
        ny, nx = (ratio, ratio) if ratio > 0 else (math.ceil(bin_h), math.ceil(bin_w))
        for c in range(x.shape[1]):
            plane = x[int(image), c]
            for i in range(size[0]):
                for j in range(size[1]):
                    samples = [
                        bilinear(plane, y1 + (i + (a + 0.5) / ny) * bin_h, x1 + (j + (b + 0.5) / nx) * bin_w)
                        for a in range(ny)
                        for b in range(nx)
                    ]
                    out[k, c, i, j] = sum(samples) / max(len(samples), 1)
    return out


def reference_roi_pool(x, rois, size, scale):
    """mmcv/ops/csrc/common/cuda/roi_pool_cuda_kernel.cuh in Python."""
    out = x.new_zeros(len(rois), x.shape[1], *size)
    height, width = x.shape[2:]
    for k, (image, x1, y1, x2, y2) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = x1 * scale, y1 * scale, (x2 + 1) * scale, (y2 + 1) * scale
        if x2 <= x1 or y2 <= y1:
            continue
        bin_h, bin_w = (y2 - y1) / size[0], (x2 - x1) / size[1]
        for i in range(size[0]):
            for j in range(size[1]):
                top, bottom = math.floor(i * bin_h + y1), math.ceil((i + 1) * bin_h + y1)
                left, right = math.floor(j * bin_w + x1), math.ceil((j + 1) * bin_w + x1)
                top, bottom = (min(max(v, 0), height) for v in (top, bottom))
                left, right = (min(max(v, 0), width) for v in (left, right))
                if bottom > top and right > left:
                    out[k, :, i, j] = x[int(image), :, top:bottom, left:right].amax(dim=(1, 2))
    return out


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 2])
def test_roi_align_matches_the_loop(aligned, ratio):
    x = features()
    out = mmcv.RoIAlign((3, 2), 0.25, ratio, aligned=aligned)(x, ROIS)
    torch.testing.assert_close(out, reference_roi_align(x, ROIS, (3, 2), 0.25, ratio, aligned))
    torch.testing.assert_close(out, torchvision.ops.roi_align(x, ROIS, (3, 2), 0.25, ratio, aligned))


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 2])
def test_roi_align_gradient(aligned, ratio):
    layer = mmcv.RoIAlign((3, 2), 0.25, ratio, aligned=aligned)
    assert torch.autograd.gradcheck(lambda x: layer(x, ROIS), features().requires_grad_())


@pytest.mark.parametrize("layer", [mmcv.RoIAlign((3, 2), 0.25), mmcv.RoIPool((3, 2), 0.25)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("rois_dtype", ["same", torch.float32])
def test_half_precision_is_rounded_once(layer, dtype, rois_dtype):
    rois = ROIS.to(dtype if rois_dtype == "same" else rois_dtype)
    x = features(dtype).requires_grad_()
    wide = x.detach().float().requires_grad_()
    out, wide_out = layer(x, rois), layer(wide, rois.float())
    assert torch.equal(out, wide_out.to(dtype))

    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    out.backward(grad)
    wide_out.backward(grad.float())
    assert torch.equal(x.grad, wide.grad.to(dtype))


@pytest.mark.parametrize("layer", [mmcv.RoIAlign((3, 2), 0.25), mmcv.RoIPool((3, 2), 0.25)])
def test_no_rois(layer):
    x = features().requires_grad_()
    out = layer(x, ROIS[:0])
    assert out.shape == (0, 3, 3, 2)
    out.sum().backward()
    assert torch.equal(x.grad, torch.zeros_like(x))


@pytest.mark.parametrize("layer", [mmcv.RoIAlign((3, 2), 0.25), mmcv.RoIPool((3, 2), 0.25)])
def test_memory_layout_does_not_matter(layer):
    x = features()
    strided = x.to(memory_format=torch.channels_last).requires_grad_()
    out = layer(strided, ROIS.t().contiguous().t())
    assert torch.equal(out, layer(x, ROIS))

    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=out.dtype)
    out.backward(grad.to(memory_format=torch.channels_last))
    plain = x.clone().requires_grad_()
    layer(plain, ROIS).backward(grad)
    assert torch.equal(strided.grad, plain.grad)


def test_roi_align_by_maximum_is_refused():
    with pytest.raises(NotImplementedError, match="RoIAlign with pool_mode='max' needs"):
        mmcv.RoIAlign((3, 2), 0.25, pool_mode="max")(features(), ROIS)


@pytest.mark.parametrize("scale", [1.0, 0.25, 0.3])
def test_roi_pool_matches_the_loop(scale):
    x = features() - 5  # below 0, which only a bin without cells can give
    out = mmcv.RoIPool((3, 2), scale)(x, ROIS)
    expected = reference_roi_pool(x, ROIS, (3, 2), scale)
    assert (expected == 0).any()
    assert torch.equal(out, expected)


def test_roi_pool_of_a_roi_without_area():
    # Its bins, from 5.5 to 5.3, would still touch a cell when rounded outwards.
    x, rois = features().requires_grad_(), torch.tensor([[0, 5.5, 2.0, 4.3, 6.0]], dtype=torch.float64)
    out = mmcv.RoIPool((3, 2))(x, rois)
    out.sum().backward()
    assert torch.equal(out, torch.zeros_like(out))
    assert torch.equal(x.grad, torch.zeros_like(x))


def test_roi_pool_is_torchvisions_where_no_coordinate_needs_rounding():
    rois = torch.tensor([[0, 1, 2, 8, 6], [1, 0, 0, 9, 3], [1, 4, 4, 4, 4]], dtype=torch.float64)
    x = features()
    assert torch.equal(mmcv.RoIPool(2)(x, rois), torchvision.ops.roi_pool(x, rois, 2))
    between = rois + torch.tensor([0, 0.4, 0.4, 0.4, 0.4])
    assert not torch.equal(mmcv.RoIPool(2)(x, between), torchvision.ops.roi_pool(x, between, 2))


def test_roi_pool_gradient():
    inverted = torch.tensor([[0, 30.0, 20.0, 8.0, 4.0]], dtype=torch.float64)
    layer, rois = mmcv.RoIPool((3, 2), 0.25), torch.cat([ROIS, inverted])
    assert torch.autograd.gradcheck(lambda x: layer(x, rois), features().requires_grad_())
