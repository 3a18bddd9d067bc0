"""What an input must never bring about, whatever it says: commands, connections, files outside its folder."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_FORBIDDEN = ("os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "pty.spawn", "subprocess.", "socket.")
_ROOT = str(Path(__file__).parents[3])
# What reads and writes name first.
_WRITES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod")
_folder: str | None = None
_broken: list[str] = []
_installed = False


class IntrusionError(BaseException):
    """No Exception, so that nothing that copes with broken files copes with it."""


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if _folder is None or not event.startswith(("open", "os.", "pty", "subprocess", "socket")):
        return
    if event.startswith(_FORBIDDEN):
        _refuse(f"{event}{args!r:.200}")
    if event == "open" and isinstance(args[0], str | bytes | os.PathLike):
        path = os.path.abspath(os.fsdecode(args[0]))
        writing = bool(args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))
        reads_elsewhere = path.startswith(("/etc", "/root", "/home")) and not path.startswith(_ROOT)
        if not _inside(path) and (writing or reads_elsewhere):
            _refuse(f"open {path!r} {args[1:]}")
    elif event in _WRITES:
        # What is relative to an open folder, rmtree has found safely.
        named = os.path.isabs(args[0]) or args[-1] == -1
        if named and not _inside(os.path.abspath(os.fsdecode(args[0]))):
            _refuse(f"{event}{args!r:.200}")


def _inside(path: str) -> bool:
    # Caches of byte code and of matplotlib's fonts are no input's doing.
    return path.startswith((f"{_folder}{os.sep}", sys.prefix, sys.base_prefix, "/dev/null", "/proc/self")) or (
        path == _folder or "__pycache__" in path or "matplotlib" in path
    )


def _refuse(what: str) -> None:
    _broken.append(what)
    raise IntrusionError(what)


@contextmanager
def watched(folder: Path) -> Iterator[None]:
    """Watch what Python is asked for in the block.

    Raises:
        IntrusionError: something ran, connected, or was written outside the folder, even if that was caught.
    """
    global _folder, _installed
    if not _installed:
        # For good: Python has no way to take a hook off.
        sys.addaudithook(_watch)
        _installed = True
    _broken.clear()
    _folder = tempfile.tempdir = str(folder.resolve())
    try:
        yield
    finally:
        _folder = tempfile.tempdir = None
    if _broken:
        raise IntrusionError(_broken[0])
