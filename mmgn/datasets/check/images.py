"""The image files of an annotation file: there, readable, whole and of the size that is annotated."""

import os
import stat
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePath
from typing import Any

from PIL import Image
from rich.console import Console
from rich.progress import track

from mmgn.datasets.check.findings import Findings, printable, show

# Files a thread takes at a time.
_BATCH = 64
_ORIENTATION = 0x0112
# Orientations of EXIF that swap the sides.
_TURNED = (5, 6, 7, 8)
# Format -> what a whole file ends with.
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}


class ImageError(ValueError):
    """An image that is not there, cannot be read or is cut off: which of ``KINDS``, and why."""

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(why)
        self.kind = kind


def check_images(
    images: Sequence[dict[str, Any]],
    img_dir: str | os.PathLike[str],
    findings: Findings,
    decode: bool = False,
    jobs: int | None = None,
) -> None:
    """Check image files against their entries.

    Args:
        images: well-formed entries.
        img_dir: where their file names begin.
        findings: to add to.
        decode: read every pixel. Otherwise the header alone, and all of a JPEG or PNG whose end is not one.
        jobs: threads; None for one a core. Reading and decoding wait outside Python's lock.
    """
    root = Path(img_dir)
    batches = [images[i : i + _BATCH] for i in range(0, len(images), _BATCH)]
    found: dict[str, list[str]] = defaultdict(list)
    # Pillow warns of large images, from 89 million pixels on; from 179 million it refuses.
    with warnings.catch_warnings(), ThreadPoolExecutor(jobs or os.cpu_count()) as pool:
        warnings.simplefilter("ignore")
        results = pool.map(lambda batch: list(_defects(batch, root, decode)), batches)
        console = Console(stderr=True)
        quiet = not sys.stderr.isatty()
        for defects in track(results, "images", len(batches), console=console, transient=True, disable=quiet):
            for kind, text in defects:
                found[kind].append(text)
    for kind, texts in found.items():
        findings.add(kind, texts)


def _defects(images: Sequence[dict[str, Any]], root: Path, decode: bool) -> Iterator[tuple[str, str]]:
    for image in images:
        defect = _defect(image, root, decode)
        if defect is not None:
            kind, text = defect
            yield kind, f"image {show(image['id'])}, {show(image['file_name'])}: {text}"


def _defect(image: dict[str, Any], root: Path, decode: bool) -> tuple[str, str] | None:
    name = PurePath(image["file_name"])
    if name.is_absolute() or ".." in name.parts or "\0" in image["file_name"]:
        return "unsafe_file_name", f"not below {root}"
    try:
        size = read_size(root / name, decode)
    except ImageError as error:
        return error.kind, f"{error} in {root}" if error.kind == "missing_image" else f"{error}"
    annotated = image["width"], image["height"]
    if size != annotated:
        turned = " (the sides are swapped)" if size == annotated[::-1] else ""
        return "mis_sized_image", f"file {size[0]}x{size[1]}, annotated {annotated[0]}x{annotated[1]}{turned}"
    return None


def read_size(path: Path, decode: bool = False) -> tuple[int, int]:
    """Return an image's width and height as mmcv loads it, from a file that is trusted in nothing.

    Args:
        path: the file.
        decode: read every pixel. Otherwise the header alone, and all of a JPEG or PNG whose end is not one.

    Raises:
        ImageError: it is missing, no image, cut off, or of more pixels than Pillow thinks safe.
    """
    try:
        # A pipe would keep us waiting for ever, and so would a device.
        if not stat.S_ISREG(path.stat().st_mode):
            raise ImageError("unreadable_image", "no regular file")
        with Image.open(path) as opened:
            size = _size_as_loaded(opened)
            if decode or not _ends_well(path, opened.format):
                try:
                    opened.load()
                except (OSError, SyntaxError) as error:
                    raise ImageError("truncated_image", printable(str(error))) from error
            return size
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError("missing_image", "no such file") from error
    # Decoders raise what they like at files that are none.
    except Exception as error:
        raise ImageError("unreadable_image", printable(f"{type(error).__name__}: {error}")) from error


def _size_as_loaded(image: Image.Image) -> tuple[int, int]:
    try:
        orientation = image.getexif().get(_ORIENTATION)
    # Broken EXIF data: OpenCV, too, goes on without.
    except Exception:
        orientation = None
    width, height = image.size
    return (height, width) if orientation in _TURNED else (width, height)


def _ends_well(path: Path, kind: str | None) -> bool:
    """Whether a file ends as its format asks, so that it is not cut off; formats without such an end do."""
    end = _ENDS.get(kind or "")
    if end is None:
        return True
    with path.open("rb") as file:
        file.seek(-len(end), os.SEEK_END)
        return file.read() == end
