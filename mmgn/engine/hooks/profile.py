"""ProfileHook: a few iterations of training under torch.profiler."""

from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_rank, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch import profiler


@HOOKS.register_module()
class ProfileHook(Hook):
    """Traces some iterations into ``WORK_DIR/profile/``, and prints what took longest; training goes on.

    The trace, one for each rank, is for https://ui.perfetto.dev, and ``tensorboard --logdir WORK_DIR/profile`` with
    the plugin torch-tb-profiler. mmengine's ``ProfilerHook`` counts from the run's first iteration, so a resumed
    run is not traced, and refuses a training that is shorter than it would trace.

    Args:
        skip: iterations before, while caches fill and kernels compile.
        iters: iterations traced.
        rows: of the table.

    Example:
        >>> custom_hooks = [dict(type="ProfileHook", skip=5, iters=3)]
    """

    # The iteration with all its hooks.
    priority = "LOWEST"

    def __init__(self, skip: int = 5, iters: int = 3, rows: int = 15) -> None:
        if skip < 1 or iters < 1:
            raise ValueError(f"skip and iters of ProfileHook must be at least 1, got {skip} and {iters}")
        self.skip, self.iters, self.rows = skip, iters, rows
        self._profiler: profiler.profile | None = None

    def before_train(self, runner: Any) -> None:
        """Begin to count."""
        left = runner.max_iters - runner.iter
        if left <= 0:
            return
        iters = min(self.iters, left)
        # The profiler takes an iteration to warm up.
        skip = max(min(self.skip, left - iters), 0)
        wait, warmup = (skip - 1, 1) if skip else (0, 0)
        self._profiler = profiler.profile(
            schedule=profiler.schedule(wait=wait, warmup=warmup, active=iters, repeat=1),
            on_trace_ready=lambda traced: self._save(runner, traced, iters),
            record_shapes=True,
            profile_memory=True,
        )
        self._profiler.start()

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Count an iteration."""
        if self._profiler is not None:
            self._profiler.step()

    def after_train(self, runner: Any) -> None:
        """Stop, where training was shorter than what was to be traced."""
        if self._profiler is not None:
            self._profiler.stop()

    def close(self) -> None:
        """Stop and save nothing; for callers that go on after a run has raised. May be called twice."""
        if self._profiler is not None:
            self._profiler.on_trace_ready = None
            self._profiler.stop()
        self._profiler = None

    def _save(self, runner: Any, traced: profiler.profile, iters: int) -> None:
        folder = Path(runner.work_dir) / "profile"
        profiler.tensorboard_trace_handler(str(folder), f"rank{get_rank()}", use_gzip=True)(traced)
        if not is_main_process():
            return
        by = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        table = traced.key_averages().table(sort_by=by, row_limit=self.rows, max_name_column_width=48)
        print(
            f"{table}\nProfile of {iters} iterations: {folder}; open a trace in https://ui.perfetto.dev",
            flush=True,
        )
