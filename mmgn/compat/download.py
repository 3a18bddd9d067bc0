"""Downloaded weights against the SHA-256 in their file's name, as torch.hub and OpenMMLab publish them.

mmengine asks torch.hub for no check. torch.hub's own would take ``mAP-0.392_...-3e542a40.pth`` for a file whose
hash begins with 0, and trusts what an earlier run has left.
"""

import functools
import hashlib
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch

#: Who names files so; elsewhere ``-3e542a40`` may be of anything, as MMEngine's published checkpoints are of a pickle.
HOSTS = {"download.openmmlab.com", "download.pytorch.org"}

# At the name's end, 8 digits or more, and no date such as -20251126.
_HASH = re.compile(r"-(?!20\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\.)([0-9a-f]{8,64})\.[a-z.]+$")


class HashError(RuntimeError):
    """A download whose content is not what its name says."""


def expected_hash(url: str) -> str | None:
    """Return the first digits of a file's SHA-256 that its name ends in, if any.

    Of other hosts than ``HOSTS``, decimal digits alone are a count of iterations rather, unless there are 64.

    Example:
        >>> expected_hash("https://a.org/resnet50-0676ba61.pth"), expected_hash("https://a.org/step-10000000.pth")
        ('0676ba61', None)
    """
    found = _HASH.search(urlparse(url).path)
    if found is None or (found[1].isdecimal() and len(found[1]) < 64 and not _is_known(url)):
        return None
    return found[1]


def _is_known(url: str) -> bool:
    return urlparse(url).hostname in HOSTS


def cached(url: str, model_dir: str | None = None) -> Path:
    """Return where torch.hub keeps the download of a URL."""
    folder = Path(model_dir) if model_dir else Path(torch.hub.get_dir(), "checkpoints")
    return folder / Path(urlparse(url).path).name


def checked(load_url: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap torch.hub's ``load_state_dict_from_url`` so that it compares files with the hash in their name.

    From ``HOSTS`` nothing is loaded that its name does not fit: the wrapped function raises ``HashError``. What was
    downloaded then is not kept; what lay there before is left. Of other hosts it is said.
    """

    @functools.wraps(load_url)
    def load(url: str, model_dir: str | None = None, progress: bool = True, **options: Any) -> Any:
        path = cached(url, model_dir)
        expected = expected_hash(url)
        if expected is not None and _is_known(url):
            _require(url, path, expected, progress)
            return load_url(url, model_dir=model_dir, progress=progress, **options)
        loaded = load_url(url, model_dir=model_dir, progress=progress, **options)
        _say(url, path, expected)
        return loaded

    return load


def _require(url: str, path: Path, expected: str, progress: bool) -> None:
    """Download a file that is not there yet, and raise HashError for what its name does not fit."""
    if path.is_file():
        found = _sha256(path)
        if not found.startswith(expected):
            raise HashError(f"{_differs(expected, found)}. The file is {path}; delete it to download it again")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(url, str(path), expected, progress)
    except RuntimeError as error:
        digest = re.search(r'got "(\w+)"', str(error))
        if digest is None:
            raise
        raise HashError(
            f"{_differs(expected, digest[1])}. {url} was not kept: it is damaged, or not what was published. "
            "If you trust it all the same, download it by hand and give its path"
        ) from error


@functools.cache
def _say(url: str, path: Path, expected: str | None) -> None:
    from mmengine.logging import print_log

    found = _sha256(path)
    if expected is None:
        print_log(
            f"{url} was not checked, as its name has no hash. What was loaded has the SHA-256 {found}; under the name "
            f"{path.stem}-{found[:8]}{path.suffix}, on a server of yours, it will be compared.",
            logger="current",
        )
    elif not found.startswith(expected):
        print_log(
            f"{url} was loaded: {_differs(expected, found)}, which may be no hash of the file. If it is meant as one, "
            f"the file is damaged or another: delete {path} to download it again.",
            logger="current",
            level=logging.WARNING,
        )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


def _differs(expected: str, found: str) -> str:
    return f"its SHA-256 should begin with {expected}, as its name says, and is {found}"
