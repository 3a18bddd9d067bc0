"""Large files fetched over HTTP: gone on with after an interruption, tried again, checked."""

import errno
import hashlib
import http.client
import time
from collections.abc import Callable
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from rich.progress import Progress

_CHUNK = 2**20
_TIMEOUT = 60.0
# What retrying does not change: a full disk, a file that may not be written.
_OURS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS)
# Seconds before a try after one that brought nothing; they double from the first to the last.
_PAUSES = (1.0, 30.0)


class DownloadError(RuntimeError):
    """A download that cannot go on: why, what is kept, and the way out."""


def remote_size(url: str, tries: int, say: Callable[[str], None]) -> int:
    """Return the bytes of a file behind a URL.

    Args:
        url: of the file.
        tries: before it gives up.
        say: told of each try that has failed.

    Raises:
        DownloadError: no answer, or one without a size.
    """

    def ask() -> int:
        with urlopen(Request(url, method="HEAD"), timeout=_TIMEOUT) as answer:
            return int(answer.headers.get("Content-Length", -1))

    size = _try(ask, url, tries, say)
    if size <= 0:
        raise DownloadError(f"{url} does not tell its size, so it is no archive")
    return size


def fetch(url: str, file: Path, size: int, tries: int, progress: Progress) -> None:
    """Fetch a file, from where an earlier try has left it.

    Args:
        url: of the file.
        file: where to put it, once it is whole.
        size: its bytes.
        tries: in a row that bring nothing, before it gives up.
        progress: to show it by.

    Raises:
        DownloadError: it has given up, or what it has to write to fails; or another file has taken the place.
    """
    part = part_of(file)
    task = progress.add_task(file.name, total=size)
    if part.exists() and part.stat().st_size > size:
        part.unlink()
    while not part.exists() or part.stat().st_size < size:
        _try(
            lambda: _go_on(url, part, lambda bytes_: progress.update(task, completed=bytes_)),
            url,
            tries,
            progress.console.out,
        )
    progress.remove_task(task)
    if file.exists():
        raise DownloadError(f"{file} has come from elsewhere meanwhile, and is left; what is fetched is {part}")
    part.rename(file)


def _go_on(url: str, part: Path, show: Callable[[int], None]) -> int:
    """Add to a part what the server gives; how many bytes there are then. Raises if there are no more than before."""
    begin = part.stat().st_size if part.exists() else 0
    try:
        with urlopen(Request(url, headers={"Range": f"bytes={begin}-"}), timeout=_TIMEOUT) as answer:
            # A server that does not know ranges sends the whole.
            whole = answer.status != 206
            if not whole and not answer.headers.get("Content-Range", "").startswith(f"bytes {begin}-"):
                raise DownloadError(f"{url} answers to a range with {answer.headers.get('Content-Range')!r}")
            with part.open("wb" if whole else "ab") as out:
                while chunk := answer.read(_CHUNK):
                    out.write(chunk)
                    show(out.tell())
    except (OSError, http.client.HTTPException) as error:
        if getattr(error, "errno", None) in _OURS or not part.exists() or part.stat().st_size <= begin:
            raise
    # A connection that is closed early may look like the end of the file.
    if part.stat().st_size <= begin:
        raise ConnectionError(f"the connection was closed after {begin} bytes")
    return part.stat().st_size


def check_md5(file: Path, md5: str, progress: Progress, *, remove: bool) -> None:
    """Check an archive's checksum.

    Args:
        file: the archive.
        md5: what it must be.
        progress: to show it by.
        remove: one that is wrong, as there is nothing in it to go on with. Only for what :func:`fetch` has brought.

    Raises:
        DownloadError: it is wrong.
    """
    task = progress.add_task(f"{file.name}: checksum", total=file.stat().st_size)
    digest = hashlib.md5(usedforsecurity=False)
    with file.open("rb") as content:
        while chunk := content.read(_CHUNK):
            digest.update(chunk)
            progress.update(task, advance=len(chunk))
    progress.remove_task(task)
    if digest.hexdigest() == md5:
        return
    wrong = f"{file} has the MD5 checksum {digest.hexdigest()}, the published one is {md5}"
    if remove:
        file.unlink()
        raise DownloadError(
            f"{wrong}: it is another file, or was damaged on the way, and has been removed. Run the same command "
            "again, or give another URL"
        )
    raise DownloadError(
        f"{wrong}. It was there before this download, and is left as it is: move it away; or, if it is the beginning "
        f"of the archive and nothing writes to it any more, rename it {part_of(file).name} to have the rest fetched"
    )


def _try(act: Callable[[], int], url: str, tries: int, say: Callable[[str], None]) -> int:
    """Return what ``act`` does, after failures that may pass."""
    pause, longest = _PAUSES
    for left in reversed(range(tries)):
        try:
            return act()
        except (OSError, http.client.HTTPException) as error:
            # What is wrong with us or our disk does not pass.
            final = isinstance(error, HTTPError) and error.code < 500 and error.code not in (408, 429)
            if final or not left or (isinstance(error, OSError) and error.errno in _OURS):
                raise DownloadError(f"{url}: {error}. What is fetched is kept; the same command goes on") from error
            say(f"{url}: {error}; again in {pause:g} s")
            time.sleep(pause)
            pause = min(2 * pause, longest)
    raise ValueError(f"tries must be at least 1, got {tries}")


def part_of(file: Path) -> Path:
    """Return where a file is kept until it is whole."""
    return file.with_name(f"{file.name}.part")
