import pytest
import torch
from torch import nn

from mmgn.perf import training
from mmgn.perf.workload import TINY_WORKLOAD, make_batch

pytest.importorskip("mmdet")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def batch():
    return make_batch(TINY_WORKLOAD)


@pytest.fixture(scope="module")
def rows():
    return list(training.measure(CPU, TINY_WORKLOAD, ("AMP, channels_last",), repeats=1, warmup=1))


def test_every_arm_is_measured_on_the_same_work(rows):
    assert training.unavailable() is None
    assert [(row["part"], tuple(row["arms"])) for row in rows] == [
        ("training", training.TRAINED_ARMS),
        ("inference", training.INFERRED_ARMS),
    ]
    for row in rows:
        for name, figures in row["arms"].items():
            assert figures["ms"] > 0, name
            assert figures["rois"] == row["arms"]["FusedGN"]["rois"], name
            assert figures["rois"]["mask"] > 0
        ours = row["arms"]["FusedGN"]
        assert row["ratios"]["frozen BN"] == pytest.approx(row["arms"]["frozen BN"]["ms"] / ours["ms"], abs=1e-2)
        assert 0 < ours["fused"] <= ours["norms"]


def kinds(model):
    norms = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm)
    return {type(m).__name__ for m in model.modules() if isinstance(m, norms)}


def test_arms_differ_in_their_norms_alone():
    models = {arm: training.build(arm, TINY_WORKLOAD)[0] for arm in training.INFERRED_ARMS}
    assert {arm: kinds(model) for arm, model in models.items()} == {
        "frozen BN": {"BatchNorm2d"},
        "frozen BN folded": set(),
        "native GN": {"GroupNorm"},
        "FusedGN": {"FusedGN"},
    }
    weights = [
        {name: m.weight for name, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
        for model in models.values()
    ]
    for other in weights[1:]:
        assert other.keys() == weights[0].keys()
        assert all(other[name].shape == weight.shape for name, weight in weights[0].items())
    # The two GN arms are the same function.
    x = torch.randn(1, 3, 64, 96)
    native, fused = (models[arm].eval().extract_feat(x) for arm in ("native GN", "FusedGN"))
    for ours, theirs in zip(fused, native, strict=True):
        torch.testing.assert_close(ours, theirs)
    frozen, folded = (models[arm].eval().extract_feat(x) for arm in ("frozen BN", "frozen BN folded"))
    for ours, theirs in zip(folded, frozen, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_an_iteration_steps_and_changes_nothing(batch):
    arm = training.Training("FusedGN", TINY_WORKLOAD, batch, "float32", CPU)
    before = {name: value.clone() for name, value in arm.model.state_dict().items()}
    arm()
    for name, value in arm.model.state_dict().items():
        assert torch.equal(value, before[name]), name
    momentum = [state["momentum_buffer"] for state in arm.state.values()]
    assert len(momentum) == sum(p.requires_grad for p in arm.model.parameters())
    assert any(m.abs().sum() > 0 for m in momentum)
    weights = sum(t.nbytes for t in arm.model.state_dict().values())
    # The preprocessor's mean and std are in no state dict.
    assert arm.resident_bytes() == pytest.approx(weights + sum(m.nbytes for m in momentum), abs=100)


def test_a_loss_that_is_not_finite_is_no_figure(batch):
    arm = training.Training("native GN", TINY_WORKLOAD, batch, "float32", CPU)
    nn.init.constant_(arm.model.roi_head.bbox_head.fc_cls.bias, torch.nan)
    with pytest.raises(FloatingPointError, match="the loss is nan"):
        arm()


def test_an_arm_that_cannot_be_built_gives_its_reason(monkeypatch):
    def refuse(model):
        raise NotImplementedError("no fusion here")

    monkeypatch.setattr(training, "fuse_gn", refuse)
    row = next(training.measure(CPU, TINY_WORKLOAD, ("float32",), repeats=1, warmup=1))
    assert row["arms"]["FusedGN"] == {"reason": "NotImplementedError: no fusion here"}
    assert row["arms"]["native GN"]["ms"] > 0
    assert row["ratios"] == {}
