"""One process at a time: ranks that share a disk do not compile the same kernel side by side."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

#: Seconds after which a process goes on without the lock; compiling a kernel takes one or two.
PATIENCE = 120.0


def cache_directory() -> Path:
    """Return where Triton keeps compiled kernels, found as Triton does, where there need be no home."""
    home = os.environ.get("TRITON_HOME") or os.path.expanduser("~/")
    return Path(os.environ.get("TRITON_CACHE_DIR") or Path(home, ".triton", "cache"))


@contextmanager
def compile_lock(name: str) -> Iterator[bool]:
    """Hold the lock ``name`` beside Triton's cache, so that who comes second finds there what the first compiled.

    A lock is not worth a failure: where there is none to be had (no POSIX locks, a read-only or a strange file system,
    a holder that hangs) the process goes on without. A lock goes with its process, however that ends.

    Yields:
        Whether the lock is held.
    """
    try:
        import fcntl

        cache_directory().mkdir(parents=True, exist_ok=True)
        file = open(cache_directory() / f"mmgn-{name}.lock", "w")  # noqa: SIM115
    except (ImportError, OSError):
        yield False
        return
    with file:
        end = time.monotonic() + PATIENCE
        held = False
        while not held and time.monotonic() < end:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held = True
            except BlockingIOError:
                time.sleep(0.05)
            except OSError:
                break
        try:
            yield held
        finally:
            if held:
                with suppress(OSError):
                    fcntl.flock(file, fcntl.LOCK_UN)
