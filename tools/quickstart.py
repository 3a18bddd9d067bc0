"""From nothing to a report: make the digits, train a GN Mask R-CNN on them, evaluate it, write the report."""

import argparse
import contextlib
import io
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

CONFIG = "digits/mask-rcnn_r18-mini_fpn_fusedgn-all_digits.py"


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/quickstart"), help="folder to write")
    parser.add_argument("--data-dir", type=Path, default=Path("data/digits"), help="where the digits are or go")
    parser.add_argument("--epochs", type=int, help="training epochs [default: the config's]")
    parser.add_argument("--seed", type=int, default=0, help="of the training; the data are the same for all")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    args = parser.parse_args()
    if args.epochs is not None and args.epochs < 1:
        parser.error(f"--epochs must be at least 1, got {args.epochs}")
    if not 0 <= args.seed < 2**32:
        parser.error(f"--seed must lie from 0 to 2**32 - 1, got {args.seed}")
    return args


def choose_device(device: str) -> None:
    """Narrow what the process sees of CUDA; mmengine takes a GPU where there is one, and asks when it is imported.

    Raises:
        SystemExit: an unknown device, or a CUDA device that is not there.
    """
    kind, _, index = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (index and not (kind == "cuda" and index.isdigit())):
        raise SystemExit(f"quickstart.py: --device must be auto, cpu, cuda or cuda:N, got {device!r}.")
    if kind == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif index:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = None if visible is None else [gpu for gpu in visible.split(",") if gpu]
        if gpus is not None and int(index) >= len(gpus):
            raise SystemExit(f"quickstart.py: --device {device} is not among CUDA_VISIBLE_DEVICES={visible}.")
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[int(index)] if gpus else index
    if kind == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise SystemExit(f"quickstart.py: --device {device}, but torch sees no such GPU; use --device cpu.")


def holds_earlier_run(work_dir: Path) -> bool:
    """Whether the folder has a run in it, rather than nothing.

    Raises:
        SystemExit: it has something else in it.
    """
    if not work_dir.exists() or (work_dir.is_dir() and not any(work_dir.iterdir())):
        return False
    # A run that died early has a log and no record yet.
    if not (work_dir / "run.json").is_file() and not any(work_dir.glob("*/*.log")):
        raise SystemExit(
            f"quickstart.py: {work_dir} exists and is not an earlier run (it has neither run.json nor a log), so it "
            "is left alone; give another --work-dir."
        )
    return True


def set_aside(work_dir: Path) -> None:
    """Keep an earlier run under another name, so that nothing is overwritten and no curve mixes two runs."""
    number = 1
    while (aside := work_dir.with_name(f"{work_dir.name}.{number}")).exists():
        number += 1
    work_dir.rename(aside)
    print(f"An earlier run was there: kept as {aside}")


def build_runner(cfg: Any) -> Any:
    """Build the runner with a console for the progress alone: the log file has the environment and the config."""
    import pycocotools.coco
    import pycocotools.cocoeval
    from mmengine.runner import Runner

    from mmgn.engine.hooks.workers import WorkersHook

    for module in (pycocotools.coco, pycocotools.cocoeval):
        module.print = lambda *args, **kwargs: None
    with contextlib.redirect_stdout(io.StringIO()):
        runner = Runner.from_cfg(cfg)
    for handler in runner.logger.handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setStream(sys.stdout)
            handler.setLevel(logging.ERROR)
    runner.register_hook(WorkersHook())
    return runner


def main() -> None:
    """Run the road from data to report."""
    started = time.monotonic()
    args = parse_args()
    choose_device(args.device)
    earlier_run = holds_earlier_run(args.work_dir)

    import mmgn  # noqa: F401  # before mmdet: it serves mmcv's ops
    from mmgn.datasets.digits import make_digits
    from mmgn.engine.config import load_config, record_run
    from mmgn.engine.disk import told

    print(f"Digits: {args.data_dir}")
    try:
        digits = make_digits(args.data_dir)
    except (ImportError, OSError) as error:
        raise SystemExit(f"quickstart.py: {told(error)}") from None
    if earlier_run:
        set_aside(args.work_dir)

    cfg = load_config(CONFIG, work_dir=str(args.work_dir))
    cfg.randomness = dict(seed=args.seed)
    for split in ("train", "val", "test"):
        cfg[f"{split}_dataloader"].dataset.data_root = f"{digits.root}/"
    for evaluator in (cfg.val_evaluator, cfg.test_evaluator):
        evaluator.ann_file = str(digits.val_annotations)
    if args.epochs is not None:
        cfg.param_scheduler[1].end = cfg.train_cfg.max_epochs = args.epochs
    cfg.custom_hooks.append(dict(type="ProgressHook"))
    record_run(cfg)

    print(f"Training: {Path(CONFIG).stem}, {cfg.train_cfg.max_epochs} epochs")
    from mmgn.report import read_headline, write_report

    try:
        build_runner(cfg).train()
        page = write_report(args.work_dir)
    except OSError as error:
        raise SystemExit(f"quickstart.py: {told(error)}") from None
    print(read_headline(page))
    print(f"Report:      {page} (also report.md and metrics.json)")
    print(f"Checkpoint:  {(args.work_dir / 'last_checkpoint').read_text().strip()}")
    print(f"Data:        {digits.root}")
    print(f"Whole run:   {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
