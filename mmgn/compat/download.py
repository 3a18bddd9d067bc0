"""Downloaded weights against the SHA-256 in their file's name, as torch.hub and OpenMMLab publish them.

mmengine asks torch.hub for no check. torch.hub's own would take ``mAP-0.392_...-3e542a40.pth`` for a file whose
hash begins with 0, and trusts what an earlier run has left.
"""

import functools
import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch

# At the name's end, 8 digits or more, and no date such as -20251126.
_HASH = re.compile(r"-(?!20\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\.)([0-9a-f]{8,64})\.[a-z.]+$")


class HashError(RuntimeError):
    """A download whose content is not what its name says."""


def expected_hash(name: str) -> str | None:
    """Return the first digits of a file's SHA-256 that its name ends in, if any.

    Example:
        >>> expected_hash("resnet50-0676ba61.pth"), expected_hash("resnet50-20251126.pth")
        ('0676ba61', None)
    """
    found = _HASH.search(name)
    return found[1] if found else None


def cached(url: str, model_dir: str | None = None) -> Path:
    """Return where torch.hub keeps the download of a URL."""
    folder = Path(model_dir) if model_dir else Path(torch.hub.get_dir(), "checkpoints")
    return folder / Path(urlparse(url).path).name


def checked(load_url: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap torch.hub's ``load_state_dict_from_url`` so that it loads nothing that its name's hash does not fit.

    The wrapped function raises ``HashError``. What was downloaded then is not kept; what lay there before is left.
    """

    @functools.wraps(load_url)
    def load(url: str, model_dir: str | None = None, progress: bool = True, **options: Any) -> Any:
        path = cached(url, model_dir)
        expected = expected_hash(path.name)
        if expected is not None and path.is_file():
            found = _sha256(path)
            if not found.startswith(expected):
                raise HashError(f"{_differs(expected, found)}. The file is {path}; delete it to download it again")
        elif expected is not None:
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
        loaded = load_url(url, model_dir=model_dir, progress=progress, **options)
        if expected is None:
            _say_unchecked(url, path)
        return loaded

    return load


@functools.cache
def _say_unchecked(url: str, path: Path) -> None:
    from mmengine.logging import print_log

    found = _sha256(path)
    print_log(
        f"{url} was not checked, as its name has no hash. What was loaded has the SHA-256 {found}; under the name "
        f"{path.stem}-{found[:8]}{path.suffix}, on a server of yours, it will be checked.",
        logger="current",
    )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


def _differs(expected: str, found: str) -> str:
    return f"its SHA-256 should begin with {expected}, as its name says, and is {found}"
