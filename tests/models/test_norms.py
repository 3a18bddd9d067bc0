import pytest
import torch
from mmcv.cnn import build_norm_layer
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DefaultScope
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

import mmgn  # noqa: F401  # before mmdet: it serves mmcv's ops
from mmgn import FusedGN
from mmgn.models.norms import NormLayer, is_batch_norm, norm_layers


def mmcv_norm(cfg):
    import mmdet.models  # noqa: F401

    with DefaultScope.overwrite_default_scope("mmdet"):
        return build_norm_layer(cfg, 64)[1]


def timm_norm(name):
    return getattr(pytest.importorskip("timm.layers"), name)(64)


def mmpretrain_norm(name):
    pytest.importorskip("mmpretrain.models")
    from mmpretrain.registry import MODELS

    with DefaultScope.overwrite_default_scope("mmpretrain"):
        return MODELS.build(dict(type=name, num_channels=64))


NORMS = {
    "BatchNorm1d": (lambda: nn.BatchNorm1d(64), "BN", None),
    "BatchNorm3d": (lambda: nn.BatchNorm3d(64, affine=False), "BN", None),
    "mmcv BN": (lambda: mmcv_norm(dict(type="BN", requires_grad=False)), "BN", None),
    "SyncBatchNorm": (lambda: nn.SyncBatchNorm(64), "SyncBN", None),
    "mmcv SyncBN": (lambda: mmcv_norm(dict(type="SyncBN")), "SyncBN", None),
    "mmcv MMSyncBN": (lambda: mmcv_norm(dict(type="MMSyncBN")), "SyncBN", None),
    "mmengine's reverted SyncBN": (lambda: revert_sync_batchnorm(nn.SyncBatchNorm(64)), "BN", None),
    "torchvision FrozenBatchNorm2d": (lambda: FrozenBatchNorm2d(64), "FrozenBN", None),
    "mmdet FrozenBN": (lambda: mmcv_norm(dict(type="FrozenBN")), "FrozenBN", None),
    "timm BatchNormAct2d": (lambda: timm_norm("BatchNormAct2d"), "BN", None),
    "timm FrozenBatchNormAct2d": (lambda: timm_norm("FrozenBatchNormAct2d"), "FrozenBN", None),
    "timm GroupNormAct": (lambda: timm_norm("GroupNormAct"), "GN", 32),
    "timm LayerNorm2d": (lambda: timm_norm("LayerNorm2d"), "LN", None),
    "mmpretrain LN2d": (lambda: mmpretrain_norm("LN2d"), "LN", None),
    "GroupNorm": (lambda: nn.GroupNorm(4, 64), "GN", 4),
    "FusedGN": (lambda: FusedGN(64, channels_per_group=8), "FusedGN", 8),
    "LayerNorm": (lambda: nn.LayerNorm((64, 7, 7)), "LN", None),
    "InstanceNorm2d": (lambda: nn.InstanceNorm2d(64, track_running_stats=True), "IN", None),
}


@pytest.fixture
def alone():
    """A process group of one: mmcv's own SyncBN asks for its size."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("name", NORMS)
def test_each_norm_is_known_for_what_it_is(name):
    build, kind, groups = NORMS[name]
    norm = build()
    model = nn.Sequential(nn.Conv2d(3, 64, 3), norm, nn.ReLU())
    assert norm_layers(model) == (NormLayer("1", norm, kind, 64, groups),)
    assert is_batch_norm(norm) == (kind in ("BN", "SyncBN", "FrozenBN"))


def test_what_is_no_norm():
    class Statistics(nn.Module):
        """Keeps a mean alone."""

        def __init__(self):
            super().__init__()
            self.register_buffer("running_mean", torch.zeros(3))

    model = nn.Sequential(nn.Conv2d(3, 8, 3), Statistics(), nn.LocalResponseNorm(2), nn.Dropout())
    assert norm_layers(model) == ()
    assert not is_batch_norm(model[1])


def test_lazy_norms_know_their_channels_once_they_have_seen_some():
    model = nn.Sequential(nn.LazyBatchNorm2d())
    assert [(norm.kind, norm.num_channels) for norm in norm_layers(model)] == [("BN", 0)]
    model(torch.randn(2, 5, 3, 3))
    assert norm_layers(model)[0].num_channels == 5


def test_names_and_a_norm_in_two_places():
    norm = nn.BatchNorm2d(8)
    model = nn.ModuleDict({"a": nn.Sequential(norm, nn.GroupNorm(2, 8)), "b": nn.Sequential(norm)})
    assert [layer.name for layer in norm_layers(model)] == ["a.0", "a.1"]
    assert [layer.name for layer in norm_layers(norm)] == [""]


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_only_models_have_norms():
    with pytest.raises(TypeError, match="got dict"):
        norm_layers(dict(type="ResNet"))
    with pytest.raises(TypeError, match=r"model is TorchScript \(Sequential\)"):
        norm_layers(torch.jit.script(nn.Sequential(nn.BatchNorm2d(3))))
