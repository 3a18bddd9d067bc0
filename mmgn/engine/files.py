"""Files that are whole or not there: written beside their place, then renamed into it."""

import contextlib
import errno
import os
import shutil
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

#: For mmengine's ``backend_args``.
WHOLE_FILES = {"backend": "mmgn_whole_files"}


class WriteError(OSError):
    """A file that could not be written: which, how large, why; what was there before is untouched."""

    def __str__(self) -> str:
        return str(self.strerror)


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file so that a reader, and a crash, finds the old content or the new one.

    Raises:
        WriteError: it cannot be written, such as on a full disk.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            # A rename may reach the disk before the bytes do.
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise WriteError(error.errno, _cause(path, len(content), error)) from error
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def _cause(path: Path, size: int, error: OSError) -> str:
    text = f"{path} ({size / 2**20:.1f} MiB) cannot be written: {error.strerror or error}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        with contextlib.suppress(OSError):
            text += f"; {shutil.disk_usage(path.parent).free / 2**20:.1f} MiB are free there"
    return text


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
