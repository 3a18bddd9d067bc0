"""The flags of tools/train.py: what each does to a config, and where it makes no sense."""

import argparse
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmgn.engine.hooks.model import check_backend
from mmgn.engine.model import takes

_AMP = {"fp16": "float16", "bf16": "bfloat16"}
#: Metrics that give ``coco/segm_mAP`` and ``coco/bbox_mAP``.
_COCO_METRICS = ("CocoMetric", "FastCocoMetric")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags beyond those that train and test share: mmdet's, then the others."""
    add = parser.add_argument
    add("--work-dir", help="folder for logs and checkpoints")
    add("--amp", action="store_true", help="mixed precision, in float16 unless --amp-dtype says else")
    add(
        "--auto-scale-lr",
        action="store_true",
        help="scale the learning rate, where a training begins, with the images of an update: batch size x processes x "
        "--accumulate",
    )
    add(
        "--resume",
        nargs="?",
        const="auto",
        help="go on from this checkpoint; without a path, from the work dir's last, or begin where there is none",
    )
    add("--amp-dtype", choices=list(_AMP), help="mixed precision in this dtype; bf16 scales no loss")
    add("--channels-last", action="store_true", help="model and images in torch.channels_last")
    add(
        "--compile",
        nargs="?",
        const="inductor",
        metavar="BACKEND",
        help="torch.compile the backbone and the neck [without BACKEND: inductor]; after CONFIG",
    )
    add("--seed", type=int, help="of all that is random; each data loading worker of each process adds its own number")
    add(
        "--deterministic",
        action="store_true",
        help="deterministic algorithms alone; torch raises where an operator has none",
    )
    add("--batch-size", type=int, help="images per process and iteration: train_dataloader.batch_size")
    add(
        "--accumulate",
        type=int,
        metavar="N",
        help="update after every N iterations. Schedules go on by iterations and epochs, so a warm-up of K iterations "
        "has K/N updates; the loss is that of N batches' mean",
    )
    add("--grad-checkpoint", action="store_true", help="compute the backbone's activations twice, to keep fewer")
    add("--val-loss", action="store_true", help="losses on the validation images too, which costs a pass over them")
    add("--tensorboard", action="store_true", help="scalars for TensorBoard too, by MMEngine's own visualizer")
    add("--profile", action="store_true", help="trace a few iterations into WORK_DIR/profile")
    add("--skip-preflight", action="store_true", help="do not check data, classes, disk and norms first")
    add("--dry-run", action="store_true", help="check, train one update, tell memory and time; leaves nothing behind")


def apply(cfg: Config, args: argparse.Namespace) -> None:
    """Do to a config what the flags ask for, and have the run leave results.csv and its best checkpoint.

    Args:
        cfg: changed in place.
        args: of :func:`add_arguments`.

    Raises:
        ValueError: flags that make no sense, alone, together, or for this config.
    """
    _check(args, cfg)
    for done in (_amp, _batch, _randomness, _model, _resume, _validation):
        done(cfg, args)
    if args.tensorboard:
        _tensorboard(cfg)
    for hook in ("ProgressHook", "ResultsHook"):
        _add_hook(cfg, dict(type=hook))
    lose_nothing(cfg)
    for asked, hook in (
        (args.channels_last, "ChannelsLastHook"),
        (args.val_loss, "ValLossHook"),
        (args.profile, "ProfileHook"),
    ):
        if asked:
            _add_hook(cfg, dict(type=hook))
    if args.compile:
        _add_hook(cfg, dict(type="CompileHook", backend=args.compile))


def _check(args: argparse.Namespace, cfg: Config) -> None:
    for flag in ("batch_size", "accumulate"):
        value = getattr(args, flag)
        if value is not None and value < 1:
            raise ValueError(f"--{flag.replace('_', '-')} must be at least 1, got {value}")
    # numpy's range; processes and workers add to it.
    if args.seed is not None and not 0 <= args.seed < 2**32 - 2**16:
        raise ValueError(f"--seed must lie from 0 to 2**32 - 2**16 - 1, got {args.seed}")
    for key in ("train_cfg", "train_dataloader", "optim_wrapper"):
        if not cfg.get(key):
            raise ValueError(f"{cfg.filename} has no {key}: it is part of another config, or not one for training")
    if args.dry_run:
        for flag in ("resume", "profile"):
            if getattr(args, flag):
                raise ValueError(f"--dry-run leaves nothing behind and begins anew; run it without --{flag}")


def _amp(cfg: Config, args: argparse.Namespace) -> None:
    wrapper = cfg.optim_wrapper
    kind = _kind(wrapper) or "OptimWrapper"
    if not (args.amp or args.amp_dtype):
        # The config's own choice, where there is no GPU too.
        if kind == "AmpOptimWrapper":
            wrapper.type = "DeviceAmpOptimWrapper"
        return
    if kind not in ("OptimWrapper", "AmpOptimWrapper", "DeviceAmpOptimWrapper"):
        raise ValueError(f"--amp changes an OptimWrapper, and the config's optim_wrapper is a {kind}")
    wrapper.type = "DeviceAmpOptimWrapper"
    wrapper.setdefault("loss_scale", "dynamic")
    if args.amp_dtype:
        wrapper.dtype = _AMP[args.amp_dtype]


def _batch(cfg: Config, args: argparse.Namespace) -> None:
    loader = cfg.train_dataloader
    if args.batch_size is not None:
        for key in ("sampler", "batch_sampler"):
            if (loader.get(key) or {}).get("batch_size") is not None:
                raise ValueError(
                    f"--batch-size sets train_dataloader.batch_size, and this config's {key} has a batch_size of its "
                    f"own: --cfg-options train_dataloader.{key}.batch_size={args.batch_size}, and what belongs to it"
                )
        loader.batch_size = args.batch_size
    if args.accumulate is not None:
        cfg.optim_wrapper.accumulative_counts = args.accumulate
    if not args.auto_scale_lr:
        return
    if "base_batch_size" not in (cfg.get("auto_scale_lr") or {}):
        raise ValueError(
            f"--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=...) in {cfg.filename}, the total batch that "
            "its learning rate is meant for; mmdet's schedules have it"
        )
    cfg.auto_scale_lr.enable = True
    # mmengine compares it with the images of an iteration, and the rate is for those of an update.
    cfg.auto_scale_lr.base_batch_size /= cfg.optim_wrapper.get("accumulative_counts", 1)


def _randomness(cfg: Config, args: argparse.Namespace) -> None:
    randomness = dict(cfg.get("randomness") or {})
    if args.seed is not None:
        randomness["seed"] = args.seed
    elif args.resume is not None and randomness.get("seed") is None:
        # Of the run to be gone on with: mmengine takes it from the checkpoint after the sampler has got another.
        folder = Path(cfg.work_dir) if args.resume == "auto" else Path(args.resume).parent
        randomness["seed"] = _recorded_seed(folder)
    if args.deterministic:
        randomness["deterministic"] = True
        # Without it cuBLAS takes what it finds fastest, and torch raises at the first product of matrices.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if randomness:
        cfg.randomness = randomness


def _recorded_seed(folder: Path) -> int | None:
    try:
        seed = json.loads((folder / "run.json").read_text(encoding="utf-8"))["train"]["seed"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return seed if isinstance(seed, int) else None


def _model(cfg: Config, args: argparse.Namespace) -> None:
    if args.compile and cfg.get("compile"):
        raise ValueError(f"--compile beside the config's own compile={cfg.compile!r}: leave one")
    if args.compile:
        check_backend(args.compile)
    if not args.grad_checkpoint:
        return
    backbone = cfg.model.get("backbone")
    if backbone is None:
        raise ValueError(f"--grad-checkpoint: {cfg.model.get('type')} has no backbone in model.backbone; {_BY_NAME}")
    if not takes(cfg, backbone, "with_cp"):
        raise ValueError(f"--grad-checkpoint: the backbone {backbone.type} takes no with_cp; {_BY_NAME}")
    backbone.with_cp = True


_BY_NAME = (
    "mmengine does it for modules by name whose forward takes tensors alone, as in --cfg-options "
    "activation_checkpointing=[backbone.layer3,backbone.layer4]"
)


def _resume(cfg: Config, args: argparse.Namespace) -> None:
    # Without a path, mmgn.engine.resume chooses.
    if args.resume not in (None, "auto"):
        cfg.resume, cfg.load_from = True, args.resume


def lose_nothing(cfg: Config) -> None:
    """Have a config's training stop at inf and NaN, keep whole checkpoints, and go on from one as if never ended.

    Args:
        cfg: changed in place. Its own hooks, and loops that are not mmengine's, stay.
    """
    # mmengine's loops begin an interrupted epoch again, and load again what they have trained on.
    loop = cfg.train_cfg
    resumable = _RESUMABLE.get(_kind(loop) or loop.get("by_epoch"))
    if resumable:
        loop.pop("by_epoch", None)
        loop.type = resumable
    for hook in ("FiniteLossHook", "RandomStatesHook"):
        _add_hook(cfg, dict(type=hook))
    safe_checkpoints(cfg)


#: By a loop's type, or by_epoch.
_RESUMABLE = {
    "EpochBasedTrainLoop": "ResumableEpochLoop",
    "IterBasedTrainLoop": "ResumableIterLoop",
    True: "ResumableEpochLoop",
    False: "ResumableIterLoop",
}


def _validation(cfg: Config, args: argparse.Namespace) -> None:
    if args.val_loss and (cfg.get("val_cfg") is None or not cfg.get("val_dataloader")):
        raise ValueError(f"--val-loss: {cfg.filename} validates nothing, it has no val_cfg or no val_dataloader")


def _tensorboard(cfg: Config) -> None:
    if importlib.util.find_spec("tensorboard") is None:
        raise ValueError("--tensorboard: no package tensorboard; pip install tensorboard")
    visualizer = cfg.get("visualizer") or dict(type="Visualizer")
    backends = visualizer.get("vis_backends") or []
    if not any(_kind(backend) == "TensorboardVisBackend" for backend in backends):
        cfg.visualizer = dict(visualizer, vis_backends=[*backends, dict(type="TensorboardVisBackend")])


def _kind(cfg: Any) -> str | None:
    """Return the name of a config's type, which is a class in a config of mmengine's new style."""
    kind = cfg.get("type")
    return getattr(kind, "__name__", kind)


def _add_hook(cfg: Config, hook: dict[str, Any]) -> None:
    hooks = cfg.get("custom_hooks") or []
    if not any(_kind(other) == hook["type"] for other in hooks):
        cfg.custom_hooks = [*hooks, hook]


def safe_checkpoints(cfg: Config) -> None:
    """Have a config keep the last three checkpoints and the best, unless it says else; each whole.

    Args:
        cfg: changed in place. The best is by mask AP, by box AP where the evaluator judges no masks, by top-1 accuracy
            or mIoU; none where the evaluator gives none of them.
    """
    hooks = cfg.get("default_hooks") or {}
    hook = hooks.get("checkpoint", dict(type="CheckpointHook", interval=1))
    if not hook or _kind(hook) != "CheckpointHook":
        return
    hook = dict(dict(max_keep_ckpts=3) | hook, type="SafeCheckpointHook")
    best = best_metric(cfg)
    if best and "save_best" not in hook:
        hook.update(save_best=best, rule="greater")
    cfg.default_hooks = dict(hooks, checkpoint=hook)


def best_metric(cfg: Config) -> str | None:
    """Return the name of the metric that the best checkpoint is chosen by, None where there is none known."""
    # mmpretrain's is an empty dict.
    if cfg.get("val_cfg") is None:
        return None
    evaluator = cfg.get("val_evaluator")
    metrics = evaluator if isinstance(evaluator, (list, tuple)) else [evaluator or {}]
    return next(filter(None, map(_best_of, metrics)), None)


def _best_of(metric: Any) -> str | None:
    kind, prefix = _kind(metric), metric.get("prefix")
    if metric.get("format_only"):
        return None
    if kind in _COCO_METRICS:
        judged = metric.get("metric", "bbox")
        judged = [judged] if isinstance(judged, str) else judged
        best = next((name for name in ("segm", "bbox") if name in judged), None)
        return f"{prefix or 'coco'}/{best}_mAP" if best else None
    # mmsegmentation's, and mmpretrain's, which names thresholds in its keys where there are any.
    if kind == "IoUMetric" and "mIoU" in metric.get("iou_metrics", "mIoU"):
        return f"{prefix}/mIoU" if prefix else "mIoU"
    if kind == "Accuracy" and not metric.get("thrs"):
        topk = metric.get("topk", 1)
        return f"{prefix or 'accuracy'}/top1" if 1 in ([topk] if isinstance(topk, int) else topk) else None
    return None
