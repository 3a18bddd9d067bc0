"""One readable error where a rank fails, instead of one from each rank that it pulls down."""

import functools
import json
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.distributed as dist

from mmgn.engine.distributed import LaunchError, first_line

#: Seconds that a rank leaves its launcher to end it, before it tells what another one tells already, or has caused.
GRACE = 10


def one_error(main: Callable[[], None]) -> Callable[[], None]:
    """Decorate a tool's ``main``: a rank that fails tells why, once, and the ranks that it pulls down are quiet.

    torchrun prints what its ranks record for it; under other launchers, and before a restart, the rank prints it.
    """

    @functools.wraps(main)
    def wrapper() -> None:
        try:
            main()
        except (Exception, SystemExit) as error:
            if isinstance(error, SystemExit) and not isinstance(error.code, str):
                raise
            size = _of_rank("WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE") or "1"
            if size == "1" and "TORCHELASTIC_RUN_ID" not in os.environ and not isinstance(error, LaunchError):
                raise
            _report(_account(error))
            raise SystemExit(1) from None
        if dist.is_initialized():
            dist.destroy_process_group()

    return wrapper


def _account(error: BaseException) -> str:
    if isinstance(error, LaunchError):
        return f"{Path(sys.argv[0]).name}: {error}"
    if isinstance(error, SystemExit):
        return str(error)
    if isinstance(error, dist.DistError) or "gloo" in str(error):
        # The launcher ends this rank meanwhile, unless the one that failed is on another machine.
        time.sleep(GRACE)
        return f"lost the other ranks; the output of the one that failed first tells why ({first_line(error)})"
    return "".join(traceback.format_exception(error)).rstrip()


def _report(text: str) -> None:
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    last = os.environ.get("TORCHELASTIC_RESTART_COUNT") == os.environ.get("TORCHELASTIC_MAX_RESTARTS")
    if file and last:
        # As torch.distributed.elastic's ErrorHandler writes it, with this text in the place of its traceback.
        extra: dict[str, Any] = {"py_callstack": text, "timestamp": str(int(time.time()))}
        Path(file).write_text(json.dumps({"message": {"message": text, "extraInfo": extra}}))
        return
    rank = _of_rank("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK")
    # What fails on all is for one to tell.
    if rank and rank != "0":
        time.sleep(GRACE)
    print(f"rank {rank} on {socket.gethostname()}: {text}" if rank else text, file=sys.stderr, flush=True)


def _of_rank(*names: str) -> str | None:
    return next((os.environ[name] for name in names if name in os.environ), None)
