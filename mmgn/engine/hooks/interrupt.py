"""Ctrl-C and a scheduler's SIGTERM end a training at its next boundary, with a checkpoint to go on from."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.dist import all_reduce, barrier, get_world_size
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapperDict
from mmengine.runner import find_latest_checkpoint

from mmgn.engine import random_states
from mmgn.engine.files import WHOLE_FILES
from mmgn.engine.hooks.checkpoints import point_to

SIGNALS = (signal.SIGINT, signal.SIGTERM)
CHECKPOINT = "interrupted.pth"


class Interrupted(Exception):
    """A training that a signal has ended.

    Attributes:
        signum: the signal; a shell's exit code for it is 128 + signum.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class InterruptHook(Hook):
    """Saves ``interrupted.pth`` and raises :class:`Interrupted` once a signal has come.

    That is after an iteration that has updated the parameters, or after a validation. Ranks agree on it, by one
    integer reduced in each iteration: a signal reaches them at different ones. Made by :func:`interruptible`.
    """

    # After all that belongs to the iteration: schedulers, CheckpointHook, what swaps averaged weights.
    priority = "LOWEST"

    def __init__(self) -> None:
        self.signum = 0

    def receive(self, signum: int, frame: Any) -> None:
        """Note the signal; the next one of any kind does what it did before."""
        self.signum = signum
        name = signal.Signals(signum).name
        # Not print(), in which the signal may have come.
        os.write(2, f"\n{name}: saving after this iteration or validation; again to quit at once\n".encode())
        for each in SIGNALS:
            signal.signal(each, signal.default_int_handler if each == signal.SIGINT else signal.SIG_DFL)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Stop between two updates."""
        wrapper = runner.optim_wrapper
        # Several optimizers count for themselves.
        if isinstance(wrapper, OptimWrapperDict) or wrapper.should_update():
            # The loop counts this iteration after its hooks.
            self._stop(runner, runner.iter + 1)

    def after_val(self, runner: Any) -> None:
        """Stop after a validation of training."""
        self._stop(runner, runner.iter)

    def after_train_epoch(self, runner: Any) -> None:
        """Remove an earlier interruption's checkpoint, once there is a later one."""
        old = os.path.join(runner.work_dir, CHECKPOINT)
        if runner.rank == 0 and os.path.isfile(old) and find_latest_checkpoint(runner.work_dir) != old:
            os.remove(old)

    def _stop(self, runner: Any, done: int) -> None:
        signum = self.signum
        if get_world_size() > 1:
            agreed = torch.tensor(signum)
            all_reduce(agreed, "max")
            signum = int(agreed)
        if not signum:
            return
        runner.logger.info(f"{signal.Signals(signum).name}: saving {CHECKPOINT} after iteration {done}")
        meta = {"epoch": runner.epoch, "iter": done, random_states.KEY: random_states.of_all_ranks()}
        runner.save_checkpoint(runner.work_dir, CHECKPOINT, meta=meta, backend_args=dict(WHOLE_FILES))
        point_to(runner, os.path.join(runner.work_dir, CHECKPOINT))
        # A rank that ends has the launcher end the others.
        barrier()
        # Closes what the visualizers write.
        runner.call_hook("after_run")
        raise Interrupted(signum)


@contextmanager
def interruptible(runner: Any) -> Iterator[None]:
    """Have a runner's training end as :class:`InterruptHook` tells; in the main thread."""
    hook = InterruptHook()
    runner.register_hook(hook)
    before = {signum: signal.signal(signum, hook.receive) for signum in SIGNALS}
    _RUNNING.append(hook)
    try:
        yield
    finally:
        _RUNNING.remove(hook)
        for signum, handler in before.items():
            signal.signal(signum, handler)


_RUNNING: list[InterruptHook] = []


def _leave_the_group() -> None:
    # A terminal and torchrun signal a whole process group, and a data loading worker that a SIGTERM ends takes its
    # trainer down before the iteration is over. Workers end by themselves when their trainer has.
    if _RUNNING:
        os.setpgid(0, 0)


os.register_at_fork(after_in_child=_leave_the_group)
