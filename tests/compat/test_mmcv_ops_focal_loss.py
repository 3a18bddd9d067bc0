import importlib

import pytest
import torch

from mmgn.compat import mmcv_ops

pytest.importorskip("mmcv")
mmcv_ops.install()
if mmcv_ops.served_ops()["nms"] != "torchvision":
    pytest.skip("the installed mmcv is compiled", allow_module_level=True)
mmcv = importlib.import_module("mmcv.ops")

CLASSES = 4
# The last two of the sigmoid's labels are background, the softmax ignores a negative label.
SIGMOID_LABELS = torch.tensor([0, 3, 1, 2, 0, 3, CLASSES, -1])
SOFTMAX_LABELS = torch.tensor([0, 3, 1, 2, 0, 3, -1, 2])
WEIGHT = torch.tensor([0.5, 2.0, 1.0, 3.0], dtype=torch.float64)


def logits(scale=2.0):
    return torch.randn(8, CLASSES, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * scale


def reference_sigmoid(x, target, gamma, alpha, weight):
    rows = []
    for row, label in zip(x, target.tolist(), strict=True):
        entries = []
        for c, value in enumerate(row):
            p = 1 / (1 + torch.exp(-value))
            if c == label:
                loss = -alpha * (1 - p) ** gamma * torch.log(p)
            else:
                loss = -(1 - alpha) * p**gamma * torch.log(1 - p)
            entries.append(loss if weight is None else loss * weight[label])
        rows.append(torch.stack(entries))
    return torch.stack(rows)


def reference_softmax(x, target, gamma, alpha, weight):
    rows = []
    for row, label in zip(x, target.tolist(), strict=True):
        if label < 0:
            rows.append(row.sum() * 0)
            continue
        p = torch.exp(row[label]) / torch.exp(row).sum()
        loss = -alpha * (1 - p) ** gamma * torch.log(p)
        rows.append(loss if weight is None else loss * weight[label])
    return torch.stack(rows)


@pytest.mark.parametrize("kind", ["sigmoid", "softmax"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_loss_and_gradient_match_autograd(kind, gamma, weighted, reduction):
    weight = WEIGHT if weighted else None
    if kind == "sigmoid":
        target = SIGMOID_LABELS.clamp(0, CLASSES - 1) if weighted else SIGMOID_LABELS
        layer, reference = mmcv.SigmoidFocalLoss(gamma, 0.25, weight, reduction), reference_sigmoid
    else:
        target = SOFTMAX_LABELS
        layer, reference = mmcv.SoftmaxFocalLoss(gamma, 0.25, weight, reduction), reference_softmax
    x, twin = logits().requires_grad_(), logits().requires_grad_()
    expected = reference(twin, target, gamma, 0.25, weight).sum() / (len(x) if reduction == "mean" else 1)
    loss = layer(x, target)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(x.grad, twin.grad)


def test_sigmoid_loss_without_reduction():
    x, twin = logits().requires_grad_(), logits().requires_grad_()
    loss = mmcv.SigmoidFocalLoss(2.0, 0.25, reduction="none")(x, SIGMOID_LABELS)
    expected = reference_sigmoid(twin, SIGMOID_LABELS, 2.0, 0.25, None)
    torch.testing.assert_close(loss, expected)
    grad = torch.randn(loss.shape, generator=torch.Generator().manual_seed(1), dtype=loss.dtype)
    loss.backward(grad)
    expected.backward(grad)
    torch.testing.assert_close(x.grad, twin.grad)


@pytest.mark.parametrize("kind", ["sigmoid", "softmax"])
def test_gradcheck(kind):
    function = mmcv.sigmoid_focal_loss if kind == "sigmoid" else mmcv.softmax_focal_loss
    target = SIGMOID_LABELS if kind == "sigmoid" else SOFTMAX_LABELS
    assert torch.autograd.gradcheck(lambda x: function(x, target, 2.0, 0.25, None, "sum"), logits().requires_grad_())


@pytest.mark.parametrize("kind", ["sigmoid", "softmax"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_large_logits_stay_finite(kind, gamma, dtype):
    x = torch.tensor([[200.0, -200.0], [-200.0, 200.0], [-200.0, -200.0]], dtype=dtype, requires_grad=True)
    target = torch.tensor([0, 0, 1])
    layer = mmcv.SigmoidFocalLoss if kind == "sigmoid" else mmcv.SoftmaxFocalLoss
    loss = layer(gamma, 0.25, reduction="sum")(x, target)
    loss.backward()
    assert loss.isfinite()
    assert x.grad.isfinite().all()
    # Row 1 is wrong by 200 (sigmoid, one class each way: 0.25 * 200 + 0.75 * 200), row 2 by 0.25 * 200.
    # The softmax saturates at -log(FLT_MIN) = 87.3 as in mmcv.
    expected = 250.0 if kind == "sigmoid" else 0.25 * (87.3365 + 0.5**gamma * 0.6931)
    assert loss.item() == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("kind", ["sigmoid", "softmax"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_loss_is_rounded_once(kind, dtype):
    ext = importlib.import_module("mmcv._ext")
    forward = getattr(ext, f"{kind}_focal_loss_forward")
    x, target = logits().to(dtype), SIGMOID_LABELS.clamp(0, CLASSES - 1)
    if kind == "softmax":
        x = x.softmax(dim=1)
    shape = x.shape if kind == "sigmoid" else x.shape[:1]
    out, wide = torch.full(shape, float("nan"), dtype=dtype), torch.full(shape, float("nan"))
    forward(x, target, x.new_empty(0), out, gamma=2.0, alpha=0.25)
    forward(x.float(), target, x.new_empty(0).float(), wide, gamma=2.0, alpha=0.25)
    assert torch.equal(out, wide.to(dtype))


@pytest.mark.parametrize("kind", ["sigmoid", "softmax"])
def test_no_rows(kind):
    layer = mmcv.SigmoidFocalLoss if kind == "sigmoid" else mmcv.SoftmaxFocalLoss
    x = logits()[:0].requires_grad_()
    loss = layer(2.0, 0.25, reduction="sum")(x, SIGMOID_LABELS[:0])
    loss.backward()
    assert loss.item() == 0


@pytest.mark.parametrize(
    ("layer", "label"),
    [
        (mmcv.SigmoidFocalLoss(2.0, 0.25), CLASSES + 1),
        (mmcv.SigmoidFocalLoss(2.0, 0.25, WEIGHT), CLASSES),
        (mmcv.SigmoidFocalLoss(2.0, 0.25, WEIGHT), -1),
        (mmcv.SoftmaxFocalLoss(2.0, 0.25), CLASSES),
    ],
)
def test_labels_that_mmcv_would_read_past_its_arrays_for(layer, label):
    with pytest.raises(ValueError, match=rf"labels must lie in .*, got .*{label}"):
        layer(logits()[:2], torch.tensor([1, label]))
