"""ResultsHook: WORK_DIR/results.csv, one line for each epoch."""

import csv
import io
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from mmgn.engine.epoch_loop import epochs_done
from mmgn.engine.files import write_whole
from mmgn.engine.memory import device_of, peak_memory_mb, restart_peak


@HOOKS.register_module()
class ResultsHook(Hook):
    """Writes ``results.csv``: a line for each epoch, or for each validation where training goes by iterations.

    Columns are ``epoch`` and ``iter``, how many are done; the learning rate ``lr``; ``s_per_iter``, data loading
    included, and the losses, means since the line before; ``memory_mb``, the peak on rank 0 (CUDA's allocator; of
    the process without a GPU); then what the validation gave, as ``val/...``. What a line does not have is empty.

    A resumed run keeps the lines up to where it goes on; training from scratch starts anew. Rank 0 writes.

    Example:
        >>> custom_hooks = [dict(type="ResultsHook")]
    """

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []
        self._peak_mb: float | None = None

    def before_train(self, runner: Any) -> None:
        """Read what an earlier part of this run has written."""
        rows = _read(_path(runner)) if runner.iter > 0 else []
        self._rows = [row for row in rows if int(row["iter"]) <= runner.iter]
        self._restart(runner)
        if is_main_process():
            self._write(runner)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Look at the memory: LoggerHook restarts CUDA's peak whenever it logs."""
        self._peak_mb = max(peak_memory_mb(device_of(runner)) or 0.0, self._peak_mb or 0.0)

    def after_train_epoch(self, runner: Any) -> None:
        """Add the epoch."""
        self._add(runner, {})

    def after_val_epoch(self, runner: Any, metrics: Mapping[str, Any] | None = None) -> None:
        """Add the validation to its epoch."""
        if isinstance(runner._train_loop, dict):
            return
        values = {key: value for key, value in (metrics or {}).items() if isinstance(value, Real)}
        self._add(runner, values)

    def _add(self, runner: Any, values: dict[str, Any]) -> None:
        if not self._rows or int(self._rows[-1]["iter"]) < runner.iter:
            epoch = f"{epochs_done(runner):.6g}"
            self._rows.append({"epoch": epoch, "iter": runner.iter} | self._training(runner))
            self._restart(runner)
        self._rows[-1] |= {key: f"{value:.6g}" for key, value in values.items()}
        if is_main_process():
            self._write(runner)

    def _training(self, runner: Any) -> dict[str, str]:
        since = runner.iter - (int(self._rows[-1]["iter"]) if self._rows else 0)
        scalars = runner.message_hub.log_scalars
        values = {key.removeprefix("train/"): scalars[key].current() for key in scalars if _is_rate(key)}
        means = [key for key in scalars if key.startswith("train/") and ("loss" in key or key == "train/time")]
        values |= {key.removeprefix("train/"): scalars[key].mean(since) for key in means}
        values = {"s_per_iter" if key == "time" else key: value for key, value in values.items()}
        if self._peak_mb:
            values["memory_mb"] = self._peak_mb
        return {key: f"{value:.6g}" for key, value in values.items()}

    def _restart(self, runner: Any) -> None:
        self._peak_mb = None
        restart_peak(device_of(runner))

    def _write(self, runner: Any) -> None:
        columns = list(dict.fromkeys(key for row in self._rows for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        write_whole(_path(runner), text.getvalue().encode())


def _is_rate(key: str) -> bool:
    # Beside it is base_lr, the rate before a group's own factor.
    return key.startswith("train/") and key.endswith("lr") and not key.endswith("base_lr")


def _path(runner: Any) -> Path:
    return Path(runner.work_dir) / "results.csv"


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [{key: value for key, value in row.items() if value} for row in csv.DictReader(file)]
    except FileNotFoundError:
        return []
    # A file of somebody else's, or damaged: a training must not end for it.
    return rows if all(str(row.get("iter", "")).isdigit() for row in rows) else []
