"""What a disk is to blame for, told: the file, why it cannot be written, the room that is left, and the way out."""

import contextlib
import errno
import functools
import io
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from multiprocessing import synchronize
from pathlib import Path

from mmgn.engine.files import WriteError, room

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FAILING = (errno.EIO, errno.EACCES, errno.EPERM)


def explain(error: OSError, elsewhere: str = "give another --work-dir") -> str | None:
    """Tell what a disk that is full, limited, read-only or failing has to do with an error; None if it has nothing.

    Args:
        error: of a write, or of a read where the disk fails.
        elsewhere: the way out that is not to free some room.
    """
    if error.errno not in (*_FULL, *_FAILING, errno.EROFS):
        return None
    text = str(error)
    path = None if isinstance(error, WriteError) else error.filename or _written_at(error)
    if path is not None:
        doing = "read or written" if error.errno in _FAILING else "written"
        text = f"{path} cannot be {doing}: {error.strerror}{room(Path(path).parent, error.errno)}"
    if error.errno in _FULL:
        return f"{text}. Free some room, or {elsewhere}."
    return f"{text}. {elsewhere.capitalize()}." if error.errno == errno.EROFS else f"{text}."


def told(error: Exception) -> str:
    """Return what a tool prints of an error, with the file where a disk is to blame."""
    return (explain(error, "write elsewhere") if isinstance(error, OSError) else None) or str(error)


def readable(main: Callable[[], None]) -> Callable[[], None]:
    """Decorate a tool's ``main``: a file that cannot be written is told in a line, where Python has a traceback."""

    @functools.wraps(main)
    def wrapper() -> None:
        try:
            with _quiet_events():
                main()
        except OSError as error:
            if explain(error) is None:
                raise
            raise SystemExit(f"{Path(sys.argv[0]).name}: {told(error)}") from None

    return wrapper


@contextlib.contextmanager
def quiet_logging() -> Iterator[None]:
    """Have logging print no traceback for each line that it cannot write."""
    before, logging.raiseExceptions = logging.raiseExceptions, False
    try:
        yield
    finally:
        logging.raiseExceptions = before


def watch_log(logger: logging.Logger) -> None:
    """Have the first line that a log file has no room for raise, and the others be dropped.

    Raises:
        OSError: there is such a line already.
    """
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handleError = functools.partial(_raise_once, handler)  # type: ignore[method-assign]
            handler.flush()


@contextlib.contextmanager
def _quiet_events() -> Iterator[None]:
    """Have TensorBoard's threads print no traceback of what is then raised in the thread that calls them, too."""
    before = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        if not (_of_tensorboard(args.thread) and isinstance(args.exc_value, OSError) and explain(args.exc_value)):
            before(args)

    threading.excepthook = hook
    try:
        yield
    finally:
        for thread in threading.enumerate():
            # It ends now, and the hook may be still to come.
            if _of_tensorboard(thread) and getattr(thread, "exception", None):
                thread.join()
        threading.excepthook = before


def _of_tensorboard(thread: threading.Thread | None) -> bool:
    return type(thread).__module__.startswith("tensorboard.")


def _raise_once(handler: logging.FileHandler, record: logging.LogRecord) -> None:
    handler.handleError = lambda record: None  # type: ignore[method-assign]
    error = sys.exc_info()[1]
    if isinstance(error, OSError):
        raise OSError(error.errno, error.strerror, handler.baseFilename) from error
    handler.__class__.handleError(handler, record)


def _written_at(error: OSError) -> str | None:
    """Return the file that the innermost function with an open one was writing: errors of write() do not name it."""
    found, place = None, error.__traceback__
    while place is not None:
        # Of the queues of loading workers, say. It names none either.
        if place.tb_frame.f_code.co_filename == synchronize.__file__:
            found = "/dev/shm/sem.*"
        for value in place.tb_frame.f_locals.values():
            # Of a handler of logging too.
            file = getattr(value, "stream", value)
            name = getattr(file, "name", None) if isinstance(file, io.IOBase) else None
            # TensorBoard's are bytes.
            if isinstance(name, (str, bytes)) and not os.fsdecode(name).startswith("<"):
                found = os.fsdecode(name)
        place = place.tb_next
    return found
