"""Files that are whole or not there: written beside their place, then renamed into it."""

import contextlib
import errno
import fcntl
import os
import resource
from pathlib import Path
from typing import BinaryIO

from mmengine.fileio import LocalBackend, register_backend

#: For mmengine's ``backend_args``.
WHOLE_FILES = {"backend": "mmgn_whole_files"}


class WriteError(OSError):
    """A file that could not be written: which, how large, why; what was there before is untouched."""

    def __str__(self) -> str:
        return str(self.strerror)


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file so that a reader, and a crash, finds the old content or the new one; the new one once this returns.

    Raises:
        WriteError: it cannot be written, such as on a full disk.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with _open_locked(beside) as file:
            file.write(content)
            file.flush()
            # A rename may reach the disk before the bytes do.
            os.fsync(file.fileno())
            beside.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise WriteError(error.errno, _cause(path, len(content), error)) from error
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def remove_leftovers(folder: str | os.PathLike[str]) -> list[Path]:
    """Remove what processes that were killed have begun to write in a folder; returns it.

    What a process is writing is locked by it until it ends, however it does, and stays.
    """
    removed = []
    for path in Path(folder).glob(".*.part"):
        # Of a file system without locks nothing is known. NFS locks only what is open for writing.
        with contextlib.suppress(OSError), path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
            removed.append(path)
    return removed


def _open_locked(path: Path) -> BinaryIO:
    while True:
        file = path.open("wb")
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        # Between the two, another process may have taken it for a leftover.
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()


def _sync_folder(folder: Path) -> None:
    # Not all file systems can.
    with contextlib.suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _cause(path: Path, size: int, error: OSError) -> str:
    text = f"{path} ({size / 2**20:.1f} MiB) cannot be written: {error.strerror or error}"
    return text + room(path.parent, error.errno)


def room(folder: Path, number: int | None) -> str:
    """Tell what there is room for in a folder, after an error of that number; '' where room is not what it lacked."""
    if number == errno.EFBIG:
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        return "" if limit == resource.RLIM_INFINITY else f"; ulimit -f allows files of {limit / 2**20:.1f} MiB"
    # Of a quota, what the disk has free says nothing.
    if number != errno.ENOSPC:
        return ""
    with contextlib.suppress(OSError):
        there = os.statvfs(folder)
        inodes = "" if there.f_favail or not there.f_files else ", and no inode for one more file"
        return f"; {there.f_bavail * there.f_frsize / 2**20:.1f} MiB are free there{inodes}"
    return ""


class WholeFilesBackend(LocalBackend):
    """mmengine's local storage, whose ``put`` and ``put_text`` leave no partial file."""

    def put(self, obj: bytes, filepath: str | os.PathLike[str]) -> None:
        """Write bytes."""
        Path(filepath).parent.mkdir(parents=True, exist_ok=True)
        write_whole(filepath, obj)

    def put_text(self, obj: str, filepath: str | os.PathLike[str], encoding: str = "utf-8") -> None:
        """Write text."""
        self.put(obj.encode(encoding), filepath)


register_backend(WHOLE_FILES["backend"], WholeFilesBackend)
