"""Evaluate a detector: mmdet's tools/test.py with the same flags, for any mmdet config.

Beyond mmdet's: --speed and --channels-last; --tta merges masks too; and a checkpoint that is not of the config's
model is an error.
"""

import argparse

import mmgn  # noqa: F401  # before mmdet: it serves mmcv's ops
from mmgn.compat.checkpoint import CheckpointError
from mmgn.engine import launch, test_options
from mmgn.engine.disk import readable
from mmgn.engine.rank_error import one_error


def parse_args() -> argparse.Namespace:
    """Parse mmdet's command line."""
    parser = argparse.ArgumentParser(description="Test (and evaluate) a detector")
    parser.add_argument("config", help="config file: a path, a path below configs/, or mmdet::PATH")
    parser.add_argument("checkpoint", help="checkpoint file")
    parser.add_argument("--work-dir", help="folder for the evaluation's metrics")
    parser.add_argument("--out", help="write the predictions to this .pkl file, for tools/eval_results.py")
    parser.add_argument("--show", action="store_true", help="show the predictions")
    parser.add_argument("--show-dir", help="write painted images below work_dir/timestamp/SHOW_DIR")
    parser.add_argument("--wait-time", type=float, default=2, help="seconds between shown images")
    parser.add_argument("--tta", action="store_true", help="test-time augmentation: by default image and mirror image")
    parser.add_argument(
        "--speed",
        type=int,
        nargs="?",
        const=1,
        metavar="BATCH",
        help="after the test, time the model on up to 200 images in batches of BATCH [1], into run.json",
    )
    parser.add_argument("--channels-last", action="store_true", help="model and images in torch.channels_last")
    parser.add_argument(
        "--allow-missing", action="store_true", help="leave parameters that the checkpoint lacks at random values"
    )
    args = launch.parse_args(parser)
    if args.out is not None and not args.out.endswith((".pkl", ".pickle")):
        parser.error(f"--out takes a .pkl or .pickle file, got {args.out!r}")
    if args.speed is not None and args.speed < 1:
        parser.error(f"--speed takes a batch of at least 1, got {args.speed}")
    return args


@one_error
@readable
def main() -> None:
    """Test."""
    args = parse_args()
    try:
        cfg = launch.prepare(args, "test")
        test_options.apply(cfg, args)
    except (OSError, ValueError) as error:
        raise SystemExit(f"test.py: {error}") from None

    runner = launch.build_runner(cfg)
    if args.out is not None:
        runner.test_evaluator.metrics.append(test_options.dump(cfg, args.out))
    try:
        runner.test()
    except CheckpointError as error:
        raise SystemExit(f"test.py: {error}") from None


if __name__ == "__main__":
    main()
