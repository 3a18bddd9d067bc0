"""Train a detector: mmdet's tools/train.py with the same flags, for any mmdet config.

mmgn is imported before mmdet, so mmcv needs no compiled ops and checkpoints resume on a current torch.
"""

import argparse

import mmgn  # noqa: F401  # before mmdet: it serves mmcv's ops
from mmgn.compat.checkpoint import CheckpointError
from mmgn.engine import distributed, launch


def parse_args() -> argparse.Namespace:
    """Parse mmdet's command line."""
    parser = argparse.ArgumentParser(description="Train a detector")
    parser.add_argument("config", help="config file: a path, a path below configs/, or mmdet::PATH")
    parser.add_argument("--work-dir", help="folder for logs and checkpoints")
    parser.add_argument("--amp", action="store_true", help="train with automatic mixed precision")
    parser.add_argument("--auto-scale-lr", action="store_true", help="scale the learning rate with the batch")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        help="resume from this checkpoint; without a path, from the latest one in the work dir",
    )
    return launch.parse_args(parser)


@distributed.one_error
def main() -> None:
    """Train."""
    args = parse_args()
    try:
        cfg = launch.prepare(args, "train", "val")
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f"train.py: {error}") from None

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

    runner = launch.build_runner(cfg)
    try:
        runner.train()
    except CheckpointError as error:
        raise SystemExit(f"train.py: {error}") from None


if __name__ == "__main__":
    main()
