"""RunRecordHook: writes WORK_DIR/run.json, the facts about a run that its logs do not hold."""

import json
import math
import os
import shlex
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_world_size, master_only
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop

from mmgn.compat import environment
from mmgn.engine.data import metrics as metrics_of
from mmgn.engine.epoch_loop import epochs_done
from mmgn.engine.files import write_whole
from mmgn.engine.memory import device_of, memory_kind, peak_memory_mb, restart_peak
from mmgn.engine.model import unwrapped
from mmgn.engine.norm_table import FOLDED_HEADS, norm_table


@HOOKS.register_module()
class RunRecordHook(Hook):
    """Records where, how long and on what data a run was trained and evaluated.

    ``run.json`` has two sections. Each has its own command line, device, versions, seed, world size and peak
    memory: a checkpoint is often tested on another machine than the one that trained it.

    * ``train``: start, end and ``seconds``, the wall time from ``before_train`` to ``after_train``,
      validation included, added up over resumed runs. ``first_iter`` is the iteration that counting began at:
      0 unless the run was resumed from a checkpoint of another work directory. Saved after every epoch and
      before every checkpoint, so a killed run loses at most one; ``ended`` is null until training is over.
      ``norms`` is :func:`mmgn.engine.norm_table.norm_table`: its folded rows and its warnings.
    * ``evaluation``: the last validation or test with its annotation file, image folder, prefix of the COCO
      results files, number of images, classes, metrics as logged, and the checkpoint. That is null when the
      weights came from training in this process; ``iter`` then says from when. ``ms_per_image`` and ``speed``
      are there where :class:`mmgn.engine.SpeedHook` measured.

    What a data set or metric does not tell is null. Paths inside the work directory are relative to it, so that
    it can be moved; all others are absolute. Training from scratch in a work directory starts a new record.
    Only rank 0 writes; time and memory are rank 0's.

    Example:
        >>> custom_hooks = [dict(type="RunRecordHook")]
    """

    def __init__(self) -> None:
        # The section being written, None outside training.
        self._train: dict[str, Any] | None = None
        self._seconds_before = 0.0
        self._clock = 0.0
        self._peak_mb: float | None = None
        self._trained = False
        self._weights_are_trained = False
        self._metrics: Mapping[str, Any] | None = None
        self._versions: dict[str, Any] = {}

    def before_run(self, runner: Any) -> None:
        """Collect the versions, which takes a moment that is not training's."""
        self._versions = environment.collect()

    def before_train(self, runner: Any) -> None:
        """Start the clock. A resumed run, ``runner.iter > 0``, goes on with the record it finds."""
        record = _read(_record_path(runner)) if runner.iter > 0 else {}
        self._train = record.get("train") or {"started": _now(), "first_iter": runner.iter, "seconds": 0.0}
        self._seconds_before = self._train.get("seconds", 0.0)
        self._clock = time.perf_counter()
        self._restart_peak(runner)
        if self._train.get("peak_memory_kind") == memory_kind(device_of(runner)):
            self._peak_mb = self._train.get("peak_memory_mb")
        self._trained = self._weights_are_trained = True
        self._train["norms"] = _norms(runner)
        _write(_record_path(runner), record)
        self._save_train(runner)

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Note that the weights are a file's."""
        self._weights_are_trained = False

    def _after_iter(self, runner: Any, *args: Any, **kwargs: Any) -> None:
        # At every iteration, because LoggerHook, which runs later, resets CUDA's peak whenever it logs.
        peak = peak_memory_mb(device_of(runner))
        if peak is not None:
            self._peak_mb = max(peak, self._peak_mb or 0.0)

    def after_train_epoch(self, runner: Any) -> None:
        """Save the time so far."""
        self._save_train(runner)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Save the time so far: training by iterations has a single epoch."""
        self._save_train(runner)

    def after_train(self, runner: Any) -> None:
        """Mark training as complete."""
        self._save_train(runner, ended=_now())
        self._train = None

    def before_val(self, runner: Any) -> None:
        """Measure the memory of a validation by itself, unless it is part of training."""
        if self._train is None:
            self._restart_peak(runner)

    def before_test(self, runner: Any) -> None:
        """Measure the memory of a test by itself."""
        self._restart_peak(runner)

    def after_val_epoch(self, runner: Any, metrics: Mapping[str, Any] | None = None) -> None:
        """Take the metrics of a validation."""
        self._metrics = metrics

    def after_val(self, runner: Any) -> None:
        """Record a validation, once all that it leaves is there: a record of it tells that nothing is to be made up."""
        self._save_evaluation(runner, "val", runner.val_loop, self._metrics)

    def after_test_epoch(self, runner: Any, metrics: Mapping[str, Any] | None = None) -> None:
        """Record a test."""
        self._save_evaluation(runner, "test", runner.test_loop, metrics)

    def _restart_peak(self, runner: Any) -> None:
        self._peak_mb = None
        restart_peak(device_of(runner))

    def _save_train(self, runner: Any, ended: str | None = None) -> None:
        if self._train is None:
            return
        by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
        self._train |= self._context(runner)
        self._train |= {
            "seconds": self._seconds_before + time.perf_counter() - self._clock,
            "saved": _now(),
            "ended": ended,
            "iter": runner.iter,
            "max_iters": runner.max_iters,
            "epoch": int(epochs_done(runner)) if by_epoch else None,
            "max_epochs": runner.max_epochs if by_epoch else None,
        }
        _write_section(_record_path(runner), "train", self._train)

    def _save_evaluation(self, runner: Any, stage: str, loop: Any, metrics: Mapping[str, Any] | None) -> None:
        dataset = _innermost(loop.dataloader.dataset)
        prefix = getattr(dataset, "data_prefix", None) or {}
        prefixes = [getattr(metric, "outfile_prefix", None) for metric in loop.evaluator.metrics]
        # A metric with an annotation file of its own judges against that one.
        ann_file = _metric_ann_file(runner.cfg, stage) or getattr(dataset, "ann_file", None)
        base = runner.work_dir
        evaluation = self._context(runner) | {
            "stage": stage,
            "ended": _now(),
            "checkpoint": None if self._trained else _located(runner._load_from, base),
            "iter": runner.iter if self._weights_are_trained else None,
            "ann_file": _located(ann_file, base),
            "img_dir": _located(prefix.get("img") or prefix.get("img_path"), base),
            "results_prefix": _located(next(filter(None, prefixes), None), base),
            "num_images": len(loop.dataloader.dataset),
            "classes": _classes(loop.dataloader.dataset),
            "metrics": {k: float(v) for k, v in (metrics or {}).items() if isinstance(v, Real)},
        }
        _write_section(_record_path(runner), "evaluation", evaluation)

    def _context(self, runner: Any) -> dict[str, Any]:
        device = device_of(runner)
        return {
            "command": shlex.join(sys.argv),
            "config": _located(runner.cfg.filename, runner.work_dir),
            "model": _type_name(runner.cfg.get("model")),
            "seed": runner.seed,
            "world_size": get_world_size(),
            "device": device_name(device),
            "peak_memory_mb": self._peak_mb,
            "peak_memory_kind": memory_kind(device),
            "versions": self._versions,
        }


def device_name(device: torch.device) -> str:
    """Return what a reader knows the device by."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} (CUDA)"
    if device.type == "cpu":
        return f"{environment.cpu_name()} (CPU, {torch.get_num_threads()} threads)"
    return device.type


def add_to_evaluation(runner: Any, facts: dict[str, Any]) -> None:
    """Add facts to the evaluation that the runner's work directory has a record of, if it has one."""
    path = _record_path(runner)
    evaluation = _read(path).get("evaluation")
    if evaluation is not None:
        _write_section(path, "evaluation", evaluation | facts)


def evaluated_iter(runner: Any) -> int | None:
    """Return after which iteration the evaluation was that the runner's work directory has a record of."""
    iteration: int | None = (_read(_record_path(runner)).get("evaluation") or {}).get("iter")
    return iteration


def _record_path(runner: Any) -> Path:
    return Path(runner.work_dir) / "run.json"


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        # A record that somebody damaged must not keep a training from resuming.
        return {}
    return record if isinstance(record, dict) else {}


@master_only
def _write(path: Path, record: dict[str, Any]) -> None:
    write_whole(path, (json.dumps(_finite(record), indent=2, default=str) + "\n").encode())


@master_only
def _write_section(path: Path, name: str, section: dict[str, Any]) -> None:
    _write(path, _read(path) | {name: section})


def _finite(value: Any) -> Any:
    # JSON has no NaN: an undefined metric is null.
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _located(path: Any, work_dir: str) -> str | None:
    if not path:
        return None
    # A remote backend's address (s3://...) is not a path of this machine.
    if "://" in str(path):
        return str(path)
    absolute = Path(os.path.abspath(os.path.expanduser(path)))
    return str(absolute.relative_to(work_dir) if absolute.is_relative_to(work_dir) else absolute)


def _type_name(cfg: Any) -> str | None:
    kind = cfg.get("type") if isinstance(cfg, Mapping) else None
    return kind if isinstance(kind, str) else getattr(kind, "__name__", None)


def _innermost(dataset: Any) -> Any:
    while not hasattr(dataset, "ann_file") and hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    return dataset


def _classes(dataset: Any) -> list[str] | None:
    classes = (getattr(dataset, "metainfo", None) or {}).get("classes")
    return None if classes is None else [str(name) for name in classes]


def _metric_ann_file(cfg: Any, stage: str) -> str | None:
    return next((metric["ann_file"] for _, metric in metrics_of(cfg, stage) if metric.get("ann_file")), None)


def _norms(runner: Any) -> dict[str, Any] | None:
    model = unwrapped(runner.model)
    try:
        table = norm_table(model, runner.cfg)
    except (TypeError, ValueError):
        # TorchScript, or an optimizer that cannot be built a second time: the training goes on without the table.
        return None
    rows = [dict(zip(FOLDED_HEADS, row, strict=True)) for row in table.folded()]
    return {"rows": rows, "warnings": list(table.warnings)}
