"""Zip archives unpacked without trust: nothing leaves the folder, and each file is there whole or not at all."""

import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from rich.progress import Progress

_CHUNK = 2**20


class UnpackingError(RuntimeError):
    """An archive that is damaged, or would write where it must not."""


def unpack(file: Path, root: Path, progress: Progress) -> None:
    """Unpack an archive and the archives in it, these into the folders that they lie in, and check every CRC.

    Files that are there with the same size are left, so that an interrupted run goes on. Files of another size are
    somebody's own, as no interruption leaves a file in part: nothing is unpacked over them.

    Args:
        file: the archive.
        root: where to.
        progress: to show it by.

    Raises:
        UnpackingError: a member is broken, is a link, has a name that leads out of ``root`` or that another file has;
            or no room.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            _check(file, members, root)
            task = progress.add_task(f"{file.name}: unpack", total=sum(member.file_size for member in members))
            for member in members:
                _write(archive, member, root)
                progress.update(task, advance=member.file_size)
            progress.remove_task(task)
    # An encrypted member is a RuntimeError.
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        if isinstance(error, UnpackingError):
            raise
        raise UnpackingError(f"{file} cannot be unpacked: {error}") from error
    for member in members:
        inner = root / member.filename
        if inner.suffix == ".zip":
            unpack(inner, inner.parent, progress)
            inner.unlink()


def _check(file: Path, members: list[zipfile.ZipInfo], root: Path) -> None:
    for member in members:
        name = PurePosixPath(member.filename)
        # Windows' separators and drives are no part of COCO's names.
        if name.is_absolute() or ".." in name.parts or set(member.filename).intersection("\\:\0"):
            raise UnpackingError(f"{file}: member {member.filename!r} leads out of {root}; nothing is unpacked")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise UnpackingError(f"{file}: member {member.filename!r} is a link; nothing is unpacked")
        path = root / member.filename
        if path.exists() and not _is_there(path, member):
            raise UnpackingError(
                f"{path} is there and not as large as {file.name} has it; nothing is unpacked. Move it away to have "
                "the archive's"
            )
    needed = sum(member.file_size for member in members if not _is_there(root / member.filename, member))
    free = shutil.disk_usage(root).free
    if needed > free:
        raise UnpackingError(f"{file} holds {needed / 2**30:.2f} GiB, and {root} has {free / 2**30:.2f} GiB free")


def _write(archive: zipfile.ZipFile, member: zipfile.ZipInfo, root: Path) -> None:
    path = root / member.filename
    if _is_there(path, member):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        with archive.open(member) as content, part.open("wb") as out:
            shutil.copyfileobj(content, out, _CHUNK)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _is_there(path: Path, member: zipfile.ZipInfo) -> bool:
    return path.is_file() and path.stat().st_size == member.file_size
