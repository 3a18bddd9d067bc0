"""Progress of training, validation and testing: live bars on a terminal, a few plain lines in a log."""

from __future__ import annotations

import logging
import numbers
import os
import sys
import time
import weakref
from collections import deque
from datetime import timedelta
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import IterBasedTrainLoop, Runner
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from mmgn.engine.memory import device_of, peak_memory_mb


@HOOKS.register_module()
class ProgressHook(Hook):
    """Show epoch, iteration, loss, last AP, seconds per iteration, time elapsed and left of the whole run, memory.

    On a terminal this is one live bar, with a second one over the images while a validation runs. Elsewhere,
    as in a CI log, a line is printed at every tenth of the run and every ``seconds``. Only the main process
    shows anything.

    The time left is that of the training iterations, at the mean pace of the last 100, plus the last
    validation's time for each one still to come. The loss is the mean of the last 20 iterations. The memory is the
    peak of what CUDA has allocated, lately where a LoggerHook restarts it; without a GPU it is the process's.

    Args:
        quiet_console: Whether to keep the runner's INFO lines off the console, where they would drown the
            progress; the log file still gets them.
        seconds: Longest time between two plain lines.

    Example:
        >>> custom_hooks = [dict(type="ProgressHook")]
    """

    # After RuntimeInfoHook, whose loss is shown, and before hooks that may take long, such as CheckpointHook.
    priority = "BELOW_NORMAL"

    def __init__(self, quiet_console: bool = True, seconds: float = 30.0):
        if seconds <= 0:
            raise ValueError(f"seconds must be positive, got {seconds}")
        self.quiet_console = quiet_console
        self.seconds = seconds
        self._display: _Bars | _Lines | None = None
        self._release: weakref.finalize | None = None

    def before_run(self, runner: Runner) -> None:
        """Take over the console."""
        self.close()
        if not is_main_process():
            return
        stdout = sys.stdout
        live = stdout.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
        self._display = _Bars() if live else _Lines(self.seconds)
        handlers = [
            handler
            for handler in runner.logger.handlers
            if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler)
        ]
        # No hook is called when a run raises; a finalizer runs when the hook is collected or Python exits.
        saved = [(handler, handler.level, handler.stream) for handler in handlers]
        self._release = weakref.finalize(self, _give_back, self._display, saved)
        for handler in handlers:
            if handler.stream is stdout:
                # Live bars replace sys.stdout, so that what is written to it appears above them.
                handler.setStream(sys.stdout)
            if self.quiet_console:
                handler.setLevel(max(handler.level, logging.WARNING))

    def after_run(self, runner: Runner) -> None:
        """Give the console back."""
        self.close()

    def close(self) -> None:
        """Give the console back; for callers that go on after a run has raised. May be called twice."""
        if self._release is not None:
            self._release()
        self._release = self._display = None

    def before_train(self, runner: Runner) -> None:
        """Begin at the iteration the run resumes from."""
        self._headline = ""
        self._val_seconds = 0.0
        self._paces: deque[float] = deque(maxlen=100)
        self._train_start = self._mark = time.monotonic()
        if self._display is not None:
            self._display.start("train", runner.iter, runner.max_iters, self._train_text(runner, runner.iter))

    def before_val(self, runner: Runner) -> None:
        """Open a bar over the validation images."""
        self._before_evaluation("val", runner.val_dataloader)

    def before_test(self, runner: Runner) -> None:
        """Open a bar over the test images."""
        self._before_evaluation("test", runner.test_dataloader)

    def _before_evaluation(self, mode: str, dataloader: Any) -> None:
        self._evaluation_start = time.monotonic()
        self._num_images = len(dataloader.dataset)
        self._num_batches = len(dataloader)
        if self._display is not None:
            self._display.start(mode, 0, self._num_images, f"image 0/{self._num_images}")

    def _after_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None, mode: str = "train"
    ) -> None:
        if mode == "train":
            now = time.monotonic()
            self._paces.append(now - self._mark)
            self._mark = now
            # The loop counts this iteration after its hooks.
            done, total = runner.iter + 1, runner.max_iters
        else:
            done, total = self._num_images * (batch_idx + 1) // self._num_batches, self._num_images
        if self._display is None or not self._display.due(mode, done, total):
            return
        text = self._train_text(runner, done) if mode == "train" else self._evaluation_text(done)
        self._display.show(mode, done, total, text)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, Any] | None = None) -> None:
        """Keep the AP to be shown from now on."""
        self._after_evaluation("val", metrics)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, Any] | None = None) -> None:
        """Show the AP."""
        self._after_evaluation("test", metrics)

    def _after_evaluation(self, mode: str, metrics: dict[str, Any] | None) -> None:
        self._headline = _headline(metrics or {})
        now, start = time.monotonic(), self._evaluation_start
        self._val_seconds = now - start
        # The next iteration's pace does not include this validation.
        self._mark = now
        if self._display is not None:
            headline = f"{self._headline}  " if self._headline else ""
            text = f"image {self._num_images}/{self._num_images}  {headline}elapsed {_clock(now - start)}"
            self._display.end(mode, self._num_images, self._num_images, text)

    def after_train(self, runner: Runner) -> None:
        """Show the last state."""
        if self._display is not None:
            self._display.end("train", runner.iter, runner.max_iters, self._train_text(runner, runner.iter))

    def _train_text(self, runner: Runner, done: int) -> str:
        # What matters least comes last, where a narrow terminal cuts.
        parts = []
        if self._paces:
            pace = sum(self._paces) / len(self._paces)
            left = pace * (runner.max_iters - done) + self._val_seconds * _validations_left(runner)
            parts.append(f"left {_clock(left)}")
        if not isinstance(runner.train_loop, IterBasedTrainLoop):
            parts.append(f"epoch {min(runner.epoch + 1, runner.max_epochs)}/{runner.max_epochs}")
        parts.append(f"iter {done}/{runner.max_iters}")
        losses = runner.message_hub.log_scalars.get("train/loss")
        if losses is not None and self._paces:
            parts.append(f"loss {losses.mean(20):.3f}")
        if self._headline:
            parts.append(self._headline)
        if self._paces:
            parts.append(f"{pace:.3g} s/iter")
            parts.append(f"elapsed {_clock(time.monotonic() - self._train_start)}")
            memory = peak_memory_mb(device_of(runner))
            if memory is not None:
                parts.append(f"memory {memory:.0f} MiB")
        return "  ".join(parts)

    def _evaluation_text(self, done: int) -> str:
        elapsed = time.monotonic() - self._evaluation_start
        left = elapsed * (self._num_images - done) / max(done, 1)
        return f"left {_clock(left)}  image {done}/{self._num_images}  elapsed {_clock(elapsed)}"


class _Bars:
    """Live bars on a terminal; a nested loop's is removed when it ends."""

    def __init__(self) -> None:
        # No refreshing thread: dataloader workers are forked, and it could hold rich's lock at that moment.
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            TextColumn("{task.fields[text]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
            expand=True,
            auto_refresh=False,
        )
        self._tasks: dict[str, TaskID] = {}
        self._refreshed = 0.0
        self._progress.start()
        # rich hides the cursor; a killed process could not bring it back.
        self._progress.console.show_cursor(True)

    def start(self, name: str, done: int, total: int, text: str) -> None:
        text = f"{_percent(done, total):3d}%  {text}"
        self._tasks[name] = self._progress.add_task(name, total=total, completed=done, text=text)

    def due(self, name: str, done: int, total: int) -> bool:
        return done >= total or time.monotonic() - self._refreshed >= 0.2

    def show(self, name: str, done: int, total: int, text: str) -> None:
        text = f"{_percent(done, total):3d}%  {text}"
        self._progress.update(self._tasks[name], completed=done, text=text, refresh=True)
        self._refreshed = time.monotonic()

    def end(self, name: str, done: int, total: int, text: str) -> None:
        self.show(name, done, total, text)
        task = self._tasks.pop(name)
        if self._tasks:
            self._progress.remove_task(task)

    def close(self) -> None:
        self._progress.stop()


class _Lines:
    """Plain lines, at every tenth of the outermost loop and every ``seconds``."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._last: dict[str, int] = {}
        self._printed = 0.0

    def start(self, name: str, done: int, total: int, text: str) -> None:
        self._last[name] = done
        if len(self._last) == 1:
            self.show(name, done, total, text)

    def due(self, name: str, done: int, total: int) -> bool:
        outermost = name == next(iter(self._last))
        tenth = outermost and 10 * done // total > 10 * self._last[name] // total
        return tenth or time.monotonic() - self._printed >= self._seconds

    def show(self, name: str, done: int, total: int, text: str) -> None:
        print(f"{name} {_percent(done, total):3d}%  {text}", flush=True)
        self._last[name] = done
        self._printed = time.monotonic()

    def end(self, name: str, done: int, total: int, text: str) -> None:
        self.show(name, done, total, text)
        del self._last[name]

    def close(self) -> None:
        pass


def _give_back(display: _Bars | _Lines, saved: list[tuple[logging.StreamHandler, int, Any]]) -> None:
    display.close()
    for handler, level, stream in saved:
        handler.setLevel(level)
        handler.setStream(stream)


def _percent(done: int, total: int) -> int:
    # Rounded down: 100 % means done.
    return 100 * done // total if total else 100


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _headline(metrics: dict[str, Any]) -> str:
    """Such as ``bbox_mAP 0.412  segm_mAP 0.371``, or mIoU; the first number where no metric is one of them."""
    values = {key.rpartition("/")[2]: value for key, value in metrics.items() if isinstance(value, numbers.Real)}
    chosen = [name for name in values if name.endswith(("mAP", "mIoU"))] or list(values)[:1]
    return "  ".join(f"{name} {values[name]:.3f}" for name in chosen)


def _validations_left(runner: Runner) -> int:
    """How many times the training loop will still validate: every ``val_interval``, and at the end."""
    if runner.val_loop is None:
        return 0
    if isinstance(runner.train_loop, IterBasedTrainLoop):
        past, end = runner.iter, runner.max_iters
    else:
        past, end = runner.epoch, runner.max_epochs
    past = max(past, runner.val_begin - 1)
    if past >= end:
        return 0
    return end // runner.val_interval - past // runner.val_interval + (end % runner.val_interval > 0)
