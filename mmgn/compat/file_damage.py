"""What is wrong with a checkpoint's file, told from its bytes alone; None where nothing is."""

import functools
import tarfile
import time
import zipfile
from pathlib import Path


def foreign(path: Path) -> str | None:
    """Tell what is no checkpoint, or only its beginning."""
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        return "it is empty"
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, not the file itself, which `git lfs pull` brings"
    if head.lstrip().startswith(b"<"):
        return "it is a web page, probably a login or error page that answered a download"
    if head.startswith(b"PK") and not is_archive(path):
        return "it is truncated: the end of the archive is missing, so saving or copying it was cut off"
    if not head.startswith((b"PK", b"\x80")) and not tarfile.is_tarfile(path):
        return f"it is not a checkpoint: it begins with {head[:16]!r}"
    return None


def is_archive(path: Path) -> bool:
    """Whether it is a zip archive, as torch.save has made since 1.6; a damaged one too."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:
        # Of one whose directory is damaged.
        return True


def flipped(path: Path) -> str | None:
    """Tell an archive whose content has changed since it was saved: torch.load looks at no checksum."""
    if not is_archive(path):
        return None
    found = path.stat()
    # What has been written just now may be written again within one tick of the file system's clock.
    if time.time_ns() - found.st_mtime_ns < 2e9:
        return _check(path)
    return _check_once(path, found.st_size, found.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _check_once(path: Path, size: int, mtime_ns: int) -> str | None:
    # Takes reading all of it.
    return _check(path)


def _check(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            size = sum(record.file_size for record in records)
            # torch.save compresses nothing; what does may be a bomb.
            if size > path.stat().st_size:
                return f"its records claim to hold {size} bytes, more than the file has"
            # None are written under torch.serialization.set_crc32_options(False).
            flipped = archive.testzip() if any(record.CRC for record in records) else None
    # What a flipped bit leads zipfile to raise is not limited to BadZipFile.
    except Exception as error:
        return f"its archive is damaged ({error})"
    if flipped is None:
        return None
    return f"the checksum of its record {flipped!r} is wrong, so its content has changed since it was saved"
