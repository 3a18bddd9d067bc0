"""WorkersHook: no data loading worker outlives the process that it loads for, or keeps it waiting for good."""

import functools
import os
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing import parent_process
from multiprocessing.queues import Queue
from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch.utils.data import DataLoader


@HOOKS.register_module()
class WorkersHook(Hook):
    """Ends data loading workers where the process that they load for is killed, and where a batch cannot reach it.

    torch's workers look for that process when they wait for work, and then wait for what they have loaded to be taken:
    nobody takes it, and where it does not fit into their pipe (64 KiB on Linux) they stay, with their memory, until
    somebody ends them by hand. A batch for which ``/dev/shm`` has no room, or that cannot be pickled, is a traceback
    in the log, and the process waits for it for good; that its worker has ended it notices within seconds. Used by
    :func:`mmgn.engine.launch.build_runner`.

    Example:
        >>> custom_hooks = [dict(type="WorkersHook")]
    """

    def before_run(self, runner: Any) -> None:
        """Have the workers of all loops begin so."""
        # Loops that are not run are not built, and asking the runner for them would.
        for loop in (runner._train_loop, runner._val_loop, runner._test_loop):
            loader = getattr(loop, "dataloader", None)
            if isinstance(loader, DataLoader) and getattr(loader.worker_init_fn, "func", None) is not _begin:
                loader.worker_init_fn = functools.partial(_begin, os.getpid(), loader.worker_init_fn)


def _begin(owner: int, init: Callable[[int], None] | None, worker: int) -> None:
    # Workers may be threads of the process itself.
    if os.getpid() != owner:
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
        # Of this worker alone. It is what concurrent.futures overrides, for the same end.
        Queue._on_queue_feeder_error = staticmethod(_end)  # type: ignore[attr-defined]
    if init is not None:
        init(worker)


def _end_with(parent: int, seconds: float = 2) -> None:
    # What forked it, which may be a server, and what it loads for. Of the latter a later worker may hold an end.
    owner = parent_process()
    while os.getppid() == parent and (owner is None or owner.is_alive()):
        time.sleep(seconds)
    # Whatever the other threads wait for.
    os._exit(1)


def _end(error: Exception, batch: Any) -> None:
    print(f"a data loading worker cannot hand over a batch: {error}", file=sys.stderr, flush=True)
    os._exit(1)
