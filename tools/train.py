"""Train a detector: mmdet's tools/train.py with the same flags, for any mmdet config.

mmgn is imported before mmdet, so mmcv needs no compiled ops and checkpoints resume on a current torch.
"""

import argparse
import os

import mmgn  # noqa: F401  # before mmdet: it serves mmcv's ops
from mmgn.compat.checkpoint import CheckpointError
from mmgn.engine.config import check_data, load_config, record_run


def parse_args() -> argparse.Namespace:
    """Parse mmdet's command line."""
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser(description="Train a detector")
    parser.add_argument("config", help="config file, as a path or as a path below configs/")
    parser.add_argument("--work-dir", help="folder for logs and checkpoints")
    parser.add_argument("--amp", action="store_true", help="train with automatic mixed precision")
    parser.add_argument("--auto-scale-lr", action="store_true", help="scale the learning rate with the batch")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        help="resume from this checkpoint; without a path, from the latest one in the work dir",
    )
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=DictAction,
        help='override settings, as key=value; lists as key="[a,b]", without white space',
    )
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    # torch.distributed.launch passes --local-rank, older ones --local_rank.
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    return args


def main() -> None:
    """Train."""
    args = parse_args()
    try:
        cfg = load_config(args.config, options=args.cfg_options, work_dir=args.work_dir, launcher=args.launcher)
        check_data(cfg, "train", "val")
    except FileNotFoundError as error:
        raise SystemExit(f"train.py: {error}") from None
    record_run(cfg)

    if args.amp:
        cfg.optim_wrapper.type = "AmpOptimWrapper"
        cfg.optim_wrapper.loss_scale = "dynamic"
    if args.auto_scale_lr:
        if "base_batch_size" not in cfg.get("auto_scale_lr", {}):
            raise SystemExit(
                f"train.py: --auto-scale-lr needs auto_scale_lr=dict(base_batch_size=...) in {args.config}, the "
                "total batch that its learning rate is meant for; mmdet's schedules have it."
            )
        cfg.auto_scale_lr.enable = True
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume == "auto" else args.resume

    from mmdet.utils import setup_cache_size_limit_of_dynamo
    from mmengine.registry import RUNNERS
    from mmengine.runner import Runner

    setup_cache_size_limit_of_dynamo()
    runner = RUNNERS.build(cfg) if "runner_type" in cfg else Runner.from_cfg(cfg)
    try:
        runner.train()
    except CheckpointError as error:
        raise SystemExit(f"train.py: {error}") from None


if __name__ == "__main__":
    main()
