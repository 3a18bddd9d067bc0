"""What mmdet's command lines share: their arguments, the checks before a run, and the runner."""

import argparse
import os
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmgn.engine import disk, distributed
from mmgn.engine.config import load_config, record_run
from mmgn.engine.data import check_data
from mmgn.engine.hooks.workers import WorkersHook


def parse_args(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Add what train and test have in common to ``parser``, and parse; a launcher finds LOCAL_RANK set."""
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=DictAction,
        help='override settings, as key=value; lists as key="[a,b]", without white space',
    )
    parser.add_argument(
        "--data-root",
        metavar="DIR",
        help="folder of the data, in the place of the config's data_root; also by the environment's MMDET_DATASETS",
    )
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    # torch.distributed.launch passes --local-rank, older ones --local_rank.
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    return args


def prepare(args: argparse.Namespace, *splits: str) -> Config:
    """Load the config of a command line, check the data of ``splits``, and have the run recorded.

    Raises:
        FileNotFoundError: the config or the data are not there.
        ValueError: the config cannot be read.
    """
    cfg = load_config(
        args.config,
        options=args.cfg_options,
        work_dir=args.work_dir,
        launcher=args.launcher,
        data_root=args.data_root,
    )
    check_data(cfg, *splits)
    record_run(cfg)
    return cfg


def build_runner(cfg: Config) -> Any:
    """Build the config's runner, of its ``runner_type`` where it has one, in the launcher's process group.

    Raises:
        mmgn.engine.distributed.LaunchError: the group cannot be opened.
    """
    from mmdet.utils import setup_cache_size_limit_of_dynamo

    distributed.start(cfg)
    setup_cache_size_limit_of_dynamo()
    with disk.quiet_logging():
        runner = RUNNERS.build(cfg) if "runner_type" in cfg else Runner.from_cfg(cfg)
    disk.watch_log(runner.logger)
    runner.register_hook(WorkersHook())
    return runner
