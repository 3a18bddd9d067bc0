import argparse

import pytest

pytest.importorskip("mmdet")
from mmengine.config import Config

from mmgn.engine import train_options

MODEL = {"type": "MaskRCNN", "backbone": {"type": "ResNet", "depth": 50}}


def config(**more):
    settings = {
        "model": MODEL,
        "work_dir": "nowhere",
        "train_cfg": {"type": "EpochBasedTrainLoop", "max_epochs": 2},
        "val_cfg": {"type": "ValLoop"},
        "train_dataloader": {"batch_size": 2, "sampler": {"type": "DefaultSampler"}},
        "val_dataloader": {"batch_size": 1},
        "val_evaluator": {"type": "CocoMetric", "metric": ["bbox", "segm"]},
        "optim_wrapper": {"type": "OptimWrapper", "optimizer": {"type": "SGD", "lr": 0.02}},
        "auto_scale_lr": {"base_batch_size": 16},
    }
    return Config(settings | more)


def applied(*flags, **more):
    parser = argparse.ArgumentParser()
    train_options.add_arguments(parser)
    cfg = config(**more)
    train_options.apply(cfg, parser.parse_args(flags))
    return cfg


def hooks(cfg):
    return [hook["type"] for hook in cfg.custom_hooks]


def test_without_a_flag_it_is_mmdets_training_that_tells_more():
    cfg = applied()
    assert hooks(cfg) == ["ProgressHook", "ResultsHook", "FiniteLossHook", "RandomStatesHook"]
    assert cfg.train_cfg.type == "ResumableEpochLoop"
    checkpoint = {"type": "SafeCheckpointHook", "interval": 1, "max_keep_ckpts": 3}
    assert cfg.default_hooks.checkpoint == checkpoint | {"save_best": "coco/segm_mAP", "rule": "greater"}
    before = config()
    for key in ("model", "optim_wrapper", "train_dataloader", "auto_scale_lr"):
        assert cfg[key] == before[key]
    assert not cfg.get("randomness")


def test_a_configs_own_hooks_and_loop_stay():
    own = {"checkpoint": {"type": "CheckpointHook", "interval": 5, "max_keep_ckpts": -1, "save_best": "auto"}}
    loop = {"type": "IterBasedTrainLoop", "max_iters": 9}
    cfg = applied(
        default_hooks=own,
        train_cfg=loop,
        custom_hooks=[{"type": "ProgressHook", "seconds": 9}, {"type": "FiniteLossHook", "enabled": False}],
    )
    assert cfg.default_hooks.checkpoint == own["checkpoint"] | {"type": "SafeCheckpointHook"}
    assert cfg.train_cfg == {"type": "ResumableIterLoop", "max_iters": 9}
    assert cfg.custom_hooks == [
        {"type": "ProgressHook", "seconds": 9},
        {"type": "FiniteLossHook", "enabled": False},
        {"type": "ResultsHook"},
        {"type": "RandomStatesHook"},
    ]
    other = {"checkpoint": {"type": "mine.CheckpointHook"}}
    assert applied(default_hooks=other).default_hooks == other
    assert applied(train_cfg={"by_epoch": True, "max_epochs": 3}).train_cfg == {
        "type": "ResumableEpochLoop",
        "max_epochs": 3,
    }


def test_configs_of_the_new_style_name_classes():
    from mmengine.hooks import CheckpointHook
    from mmengine.optim import OptimWrapper
    from mmengine.runner import EpochBasedTrainLoop

    cfg = applied(
        "--amp",
        train_cfg={"type": EpochBasedTrainLoop, "max_epochs": 2},
        optim_wrapper={"type": OptimWrapper, "optimizer": {"type": "SGD", "lr": 0.02}},
        default_hooks={"checkpoint": {"type": CheckpointHook, "interval": 1}},
    )
    types = (cfg.train_cfg.type, cfg.optim_wrapper.type, cfg.default_hooks.checkpoint.type)
    assert types == ("ResumableEpochLoop", "DeviceAmpOptimWrapper", "SafeCheckpointHook")


@pytest.mark.parametrize(
    ("evaluator", "best"),
    [
        ({"type": "CocoMetric", "metric": "bbox"}, "coco/bbox_mAP"),
        ({"type": "FastCocoMetric", "metric": ["segm", "bbox"], "prefix": "mine"}, "mine/segm_mAP"),
        ([{"type": "VOCMetric"}, {"type": "CocoMetric"}], "coco/bbox_mAP"),
        ({"type": "CocoMetric", "metric": "proposal_fast"}, None),
        ({"type": "CocoMetric", "format_only": True}, None),
        ({"type": "VOCMetric"}, None),
        (None, None),
        ({"type": "Accuracy", "topk": (1, 5)}, "accuracy/top1"),
        ({"type": "Accuracy", "prefix": "mine"}, "mine/top1"),
        ({"type": "Accuracy", "topk": (5,)}, None),
        ({"type": "Accuracy", "topk": 5}, None),
        ({"type": "Accuracy", "thrs": (0.5, 0.9)}, None),
        ({"type": "IoUMetric", "iou_metrics": ["mIoU"]}, "mIoU"),
        ({"type": "IoUMetric", "iou_metrics": ["mDice"]}, None),
    ],
)
def test_the_best_is_by_mask_ap_where_there_is_one(evaluator, best):
    # mmpretrain's val_cfg is an empty dict.
    for val_cfg in ({"type": "ValLoop"}, {}):
        cfg = applied(val_cfg=val_cfg, val_evaluator=evaluator)
        assert cfg.default_hooks.checkpoint.get("save_best") == best


@pytest.mark.parametrize(
    ("flags", "wrapper"),
    [
        (["--amp"], {"loss_scale": "dynamic"}),
        (["--amp-dtype", "fp16"], {"loss_scale": "dynamic", "dtype": "float16"}),
        (["--amp", "--amp-dtype", "bf16"], {"loss_scale": "dynamic", "dtype": "bfloat16"}),
    ],
)
def test_mixed_precision(flags, wrapper):
    optimizer = {"type": "SGD", "lr": 0.02}
    want = {"type": "DeviceAmpOptimWrapper", "optimizer": optimizer} | wrapper
    assert applied(*flags).optim_wrapper == want
    own = {"type": "AmpOptimWrapper", "optimizer": optimizer}
    assert applied(optim_wrapper=own).optim_wrapper == own | {"type": "DeviceAmpOptimWrapper"}


def test_the_rate_is_scaled_to_the_images_of_an_update():
    cfg = applied("--batch-size", "4", "--accumulate", "2", "--auto-scale-lr")
    assert cfg.train_dataloader.batch_size == 4
    assert cfg.optim_wrapper.accumulative_counts == 2
    # mmengine's factor, batch_size x processes / base_batch_size, so is 4 * 2 / 16 on one.
    assert cfg.auto_scale_lr == {"base_batch_size": 8, "enable": True}


def test_a_resumed_run_goes_on_with_its_seed(tmp_path):
    (tmp_path / "run.json").write_text('{"train": {"seed": 11}}')
    (tmp_path / "last_checkpoint").write_text("epoch_1.pth")
    auto = applied("--resume", work_dir=str(tmp_path))
    assert auto.randomness == {"seed": 11}
    named = applied("--resume", str(tmp_path / "epoch_1.pth"), "--deterministic")
    assert named.load_from == str(tmp_path / "epoch_1.pth")
    assert named.randomness == {"seed": 11, "deterministic": True}
    assert applied("--resume", "--seed", "4", work_dir=str(tmp_path)).randomness == {"seed": 4}
    assert applied("--resume", work_dir=str(tmp_path), randomness={"seed": 5}).randomness == {"seed": 5}
    (tmp_path / "run.json").write_text("torn")
    assert applied("--resume", work_dir=str(tmp_path)).get("randomness", {}).get("seed") is None


def test_hooks_and_backends_by_flag():
    cfg = applied("--channels-last", "--val-loss", "--profile", "--compile", "aot_eager", "--tensorboard")
    asked = ["ChannelsLastHook", "ValLossHook", "ProfileHook", "CompileHook"]
    assert hooks(cfg) == ["ProgressHook", "ResultsHook", "FiniteLossHook", "RandomStatesHook", *asked]
    assert cfg.custom_hooks[-1] == {"type": "CompileHook", "backend": "aot_eager"}
    assert cfg.visualizer.vis_backends == [{"type": "TensorboardVisBackend"}]
    local = {"type": "DetLocalVisualizer", "vis_backends": [{"type": "LocalVisBackend"}]}
    backends = applied("--tensorboard", visualizer=local).visualizer.vis_backends
    assert [backend["type"] for backend in backends] == ["LocalVisBackend", "TensorboardVisBackend"]


@pytest.mark.parametrize("backbone", ["ResNet", "ResNeXt", "HRNet", "mmdet.SwinTransformer"])
def test_the_backbone_is_checkpointed_where_it_can_be(backbone):
    cfg = applied("--grad-checkpoint", model={"type": "MaskRCNN", "backbone": {"type": backbone}})
    assert cfg.model.backbone.with_cp is True


@pytest.mark.parametrize(
    ("flags", "more", "said"),
    [
        (["--batch-size", "0"], {}, "--batch-size must be at least 1, got 0"),
        (["--accumulate", "-2"], {}, "--accumulate must be at least 1, got -2"),
        (["--seed", "-1"], {}, "--seed must lie from 0"),
        (["--auto-scale-lr"], {"auto_scale_lr": None}, r"auto_scale_lr=dict\(base_batch_size=...\)"),
        (["--dry-run", "--resume"], {}, "run it without --resume"),
        (["--dry-run", "--profile"], {}, "run it without --profile"),
        (["--val-loss"], {"val_cfg": None}, "validates nothing"),
        (["--compile"], {"compile": True}, "beside the config's own compile=True"),
        (["--amp"], {"optim_wrapper": {"type": "ApexOptimWrapper"}}, "optim_wrapper is a ApexOptimWrapper"),
        (
            ["--batch-size", "2"],
            {"train_dataloader": {"sampler": {"batch_size": 5}}},
            "train_dataloader.sampler.batch_size=2",
        ),
        (
            ["--grad-checkpoint"],
            {"model": {"type": "X", "backbone": {"type": "CSPDarknet"}}},
            "the backbone CSPDarknet takes no with_cp; .*activation_checkpointing=",
        ),
        (["--grad-checkpoint"], {"model": {"type": "SoftTeacher"}}, "SoftTeacher has no backbone"),
        ([], {"train_cfg": None}, "has no train_cfg"),
    ],
)
def test_what_makes_no_sense_is_told(flags, more, said):
    with pytest.raises(ValueError, match=said):
        applied(*flags, **more)
