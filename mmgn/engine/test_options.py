"""The flags of tools/test.py: what each does to a config, and what it needs of config and machine."""

import argparse
import os
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.evaluator import BaseMetric, DumpResults

from mmgn.engine.tta import use_test_time_augmentation

_TEST_SETTINGS = ("test_dataloader", "test_cfg", "test_evaluator")
# Of other types than mmdet's: what turns the hook on, and what takes the folder; mmsegmentation's visualizer has that.
_PAINTERS = {"SegVisualizationHook": ("draw", None), "VisualizationHook": ("enable", "out_dir")}
# What matplotlib falls back to without a display, and what draws into files alone.
_WINDOWLESS = ("agg", "cairo", "pdf", "pgf", "ps", "svg", "template")


def apply(cfg: Config, args: argparse.Namespace) -> None:
    """Have the config test the checkpoint as the command line says.

    Args:
        cfg: changed in place.
        args: tools/test.py's.

    Raises:
        OSError: ``--out`` cannot be written, or there is no display for ``--show``.
        ValueError: the config has no test, or no hook to show and paint with.
    """
    # mmpretrain's test_cfg is an empty dict.
    missing = [setting for setting in _TEST_SETTINGS if cfg.get(setting) is None]
    if missing:
        raise ValueError(
            f"config {cfg.filename} has no test: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set. "
            "mmdet's data sets set all three, mostly to those of val."
        )
    if args.out is not None:
        check_writable(Path(args.out))
    if args.show:
        _check_display()
    cfg.load_from = args.checkpoint
    if args.show or args.show_dir:
        _visualize(cfg, args)
    if args.tta:
        use_test_time_augmentation(cfg)
    hooks: list[dict[str, Any]] = [dict(type="CheckpointMatchHook", allow_missing=args.allow_missing)]
    if args.channels_last:
        hooks.append(dict(type="ChannelsLastHook"))
    if args.speed is not None:
        hooks.append(dict(type="SpeedHook", batch_size=args.speed))
    cfg.custom_hooks = [*(cfg.get("custom_hooks") or []), *hooks]


def dump(cfg: Config, path: str) -> BaseMetric:
    """Return what writes the predictions of a test to a pickle, masks as RLE where they are mmdet's."""
    if (cfg.get("default_scope") or "mmdet") != "mmdet":
        return DumpResults(out_file_path=path)
    from mmdet.evaluation import DumpDetResults

    return DumpDetResults(out_file_path=path)


def check_writable(path: Path) -> None:
    """Check that a file can be written, before the work whose result it is for.

    Raises:
        OSError: it is a folder, or its folder cannot be made or written to.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give a file in it.")
    folder = path.absolute().parent
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not there.is_dir():
        raise NotADirectoryError(f"{path} cannot be written: {there} is a file, not a folder.")
    if not os.access(path if path.exists() else there, os.W_OK):
        raise PermissionError(f"{path} cannot be written: no permission in {there}.")


def _visualize(cfg: Config, args: argparse.Namespace) -> None:
    hook = cfg.default_hooks.get("visualization") if cfg.get("default_hooks") else None
    if hook is None:
        raise ValueError(
            f"--show and --show-dir need a hook that config {cfg.filename} does not have: "
            "default_hooks=dict(visualization=dict(type='DetVisualizationHook'))."
        )
    switch, folder = _PAINTERS.get(hook.type, ("draw", "test_out_dir"))
    hook[switch] = True
    if hook.type in _PAINTERS:
        # Every image, as mmdet's does.
        hook.interval = 1
    if args.show:
        hook.update(show=True, wait_time=args.wait_time)
    if args.show_dir and folder:
        hook[folder] = args.show_dir
    elif args.show_dir:
        cfg.visualizer.save_dir = args.show_dir


def _check_display() -> None:
    from matplotlib import pyplot

    backend = pyplot.get_backend()
    if backend.lower() in _WINDOWLESS:
        raise OSError(
            f"--show opens windows, and matplotlib has none here (its backend is {backend}): there is no display, or "
            "no toolkit such as PyQt6 or tkinter. --show-dir writes the same pictures to files."
        )
