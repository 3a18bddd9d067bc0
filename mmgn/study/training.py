"""One cell trained in a process of its own, as tools/train.py trains a config, with a log in the console's place."""

import gc
import os
import signal
import sys
import traceback
from pathlib import Path

import torch

from mmgn.compat import packages
from mmgn.engine import launch, resume, train_options
from mmgn.engine.config import load_config, record_run
from mmgn.engine.data import check_data
from mmgn.engine.hooks.last_validation import LastValidationHook
from mmgn.study.record import LOG, STARTS

# In the server that the cells' processes are forked from, once for all of them: a run's record asks for it, ...
packages.owners_of("torch")
# ... and what is imported needs no collecting, which data sets do when they are built.
gc.freeze()


def train_cell(config: Path, work_dir: Path, threads: int) -> None:
    """Train a cell's config, from its last checkpoint on if there is one.

    Run as a process's target, which exits with 1 where that fails.

    Args:
        config: the cell's.
        work_dir: of the cell; what is printed goes into its log, and ends with the error if there is one.
        threads: torch's.
    """
    # Ctrl-C is for the study's process to act on.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with (work_dir / LOG).open("ab") as log:
        log.write(f"{STARTS}\n".encode())
        log.flush()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(log.fileno(), stream.fileno())
    torch.set_num_threads(threads)
    try:
        cfg = load_config(str(config), work_dir=str(work_dir))
        check_data(cfg, "train", "val")
        record_run(cfg)
        train_options.lose_nothing(cfg)
        chosen = resume.choose(cfg)
        if chosen:
            print(chosen)
        runner = launch.build_runner(cfg)
        runner.register_hook(LastValidationHook())
        runner.train()
    except Exception:
        traceback.print_exc()
        raise SystemExit(1) from None
