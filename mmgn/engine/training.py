"""A training that ends in one paragraph, whatever ends it: what happened, what is left, how it goes on."""

import errno
import os
import re
from typing import Any

import torch
from mmengine.runner import find_latest_checkpoint

from mmgn.compat.checkpoint import CheckpointError
from mmgn.engine import disk
from mmgn.engine.hooks.interrupt import Interrupted, interruptible
from mmgn.engine.hooks.last_validation import LastValidationHook
from mmgn.engine.hooks.profile import ProfileHook
from mmgn.engine.hooks.progress import ProgressHook
from mmgn.engine.nonfinite import NonFiniteError


class TrainingError(RuntimeError):
    """A training that cannot go on, for a cause outside the program: which, what is left, the way out."""


def train(runner: Any) -> None:
    """Train; resumed after the last iteration, validate what was not validated any more.

    Raises:
        Interrupted: by Ctrl-C or SIGTERM; there is a checkpoint to resume from.
        TrainingError: the disk, the data or the memory failed, or inf or NaN came up.
        CheckpointError: the checkpoint to begin with cannot be loaded.
    """
    runner.register_hook(LastValidationHook())
    try:
        with interruptible(runner):
            runner.train()
    except (Interrupted, CheckpointError):
        raise
    except Exception as error:
        cause = explain(error)
        if cause is None:
            raise
        raise TrainingError(
            f"training has stopped after {runner.iter} iterations: {cause} {what_is_left(runner)}"
        ) from error
    finally:
        # Bars would be drawn again over what is printed now, and a profiler that still runs ends in a crash.
        for hook in runner.hooks:
            if isinstance(hook, (ProfileHook, ProgressHook)):
                hook.close()


def what_is_left(runner: Any) -> str:
    """Tell the checkpoint to resume from, and how."""
    last = find_latest_checkpoint(runner.work_dir) if os.path.exists(f"{runner.work_dir}/last_checkpoint") else None
    if not last:
        return "There is no checkpoint yet."
    return f"The same command with --resume goes on from {last}."


def explain(error: Exception) -> str | None:
    """Return the cause of an error that is no fault of the program, and what helps; None for any other."""
    if isinstance(error, NonFiniteError):
        return str(error)
    text = _last_line(error)
    if isinstance(error, torch.OutOfMemoryError):
        return f"the GPU's memory is full ({text}) Less is taken by --batch-size, --amp-dtype bf16, --grad-checkpoint."
    # A DataLoader's worker that is gone: its signal, or its number, is all that is known.
    if "DataLoader worker (pid" in text:
        return (
            f"{text.rstrip('.')}. What it told, if anything, is above. Memory or shared memory (/dev/shm) may be full: "
            "try fewer train_dataloader.num_workers."
        )
    # mmcv tells the name of what is no image; OpenCV that of none, where there is not a byte.
    if "failed to load image" in text or "imdecode" in text:
        return (
            f"an image of the data set cannot be read: {text}. Put it right or take it out of the annotation file; "
            "tools/check_dataset.py --config CONFIG lists all such."
        )
    if not isinstance(error, OSError) or isinstance(error, ConnectionError):
        return None
    # Of a worker, and of what it wraps, the number is in the text alone.
    number = error.errno or int(next(iter(re.findall(r"\[Errno (\d+)\]", text)), 0))
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS):
        return disk.explain(error) or f"{text}. Free some room, or give another --work-dir."
    if number == errno.ENOENT:
        return f"a file of the data set, or of the work dir, is gone: {text}. Bring it back."
    return f"a file cannot be read or written: {text}."


def _last_line(error: Exception) -> str:
    # An error of a worker is a whole traceback.
    lines = [line for line in str(error).splitlines() if line.strip()]
    return re.sub(r"^(\w+\.)*\w*Error: ", "", lines[-1].strip()) if lines else type(error).__name__
