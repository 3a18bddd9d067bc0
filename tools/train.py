"""Train a detector: mmdet's tools/train.py with the same flags and more, for any mmdet config.

mmgn is imported before mmdet, so mmcv needs no compiled ops and checkpoints resume on a current torch.
"""

import argparse
import sys

from mmengine.dist import get_rank

import mmgn  # noqa: F401  # before mmdet: it serves mmcv's ops
from mmgn.compat.checkpoint import CheckpointError
from mmgn.engine import distributed, launch, resume, train_options
from mmgn.engine.disk import readable
from mmgn.engine.dry_run import dry_run
from mmgn.engine.hooks.interrupt import Interrupted
from mmgn.engine.preflight import preflight
from mmgn.engine.rank_error import one_error
from mmgn.engine.training import TrainingError, train, what_is_left


def parse_args() -> argparse.Namespace:
    """Parse mmdet's command line, and the flags beyond it."""
    parser = argparse.ArgumentParser(description="Train a detector")
    parser.add_argument("config", help="config file: a path, a path below configs/, or mmdet::PATH")
    train_options.add_arguments(parser)
    return launch.parse_args(parser)


@one_error
@readable
def main() -> None:
    """Train."""
    args = parse_args()
    try:
        cfg = launch.prepare(args, "train", "val")
        train_options.apply(cfg, args)
        # The other ranks wait for the first in a collective, with its long timeout.
        distributed.start(cfg)
        chosen = resume.choose(cfg) if args.resume == "auto" else ""
        if chosen and not get_rank():
            print(f"train.py: {chosen}", file=sys.stderr)
        notes = "" if args.skip_preflight or get_rank() else preflight(cfg, norms=not args.dry_run)
        if args.dry_run:
            report = dry_run(cfg)
            if not get_rank():
                print(*filter(None, (notes, report)), sep="\n\n")
            return
        runner = launch.build_runner(cfg)
        for text in filter(None, (chosen, notes)):
            runner.logger.info(text)
    except (FileNotFoundError, ValueError, CheckpointError, TrainingError) as error:
        raise SystemExit(f"train.py: {error}") from None
    try:
        train(runner)
    except Interrupted as error:
        if not get_rank():
            print(f"train.py: ended by {error}. {what_is_left(runner)}", file=sys.stderr)
        raise SystemExit(128 + error.signum) from None
    except (CheckpointError, TrainingError) as error:
        raise SystemExit(f"train.py: {error}") from None


if __name__ == "__main__":
    main()
