"""COCO's archives of 2017, fetched and unpacked into the layout that mmdet's configs expect.

The checksums are PaddleDetection's (ppdet/utils/download.py) for train, val and their annotations, and of the others
those that pytorchcocotools lists; the numbers of images are cocodataset.org's.
"""

import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock, Timeout
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from mmgn.datasets.transfer import DownloadError, check_md5, fetch, part_of, remote_size
from mmgn.datasets.unpacking import UnpackingError, unpack

#: cocodataset.org's own, which is published as http: it is the checksums that vouch for what comes.
URL_BASE = "http://images.cocodataset.org"


@dataclass(frozen=True)
class Archive:
    """A part of COCO.

    Attributes:
        path: below the base URL.
        md5: of the archive.
        holds: what is there when it is unpacked: path -> number of files, 1 where that is not published.
        growth: at most how many times as large it is unpacked: photographs are not compressed a second time.
    """

    path: str
    md5: str
    holds: dict[str, int] = field(default_factory=dict)
    growth: float = 1.05

    @property
    def name(self) -> str:
        """The archive's file name."""
        return self.path.rpartition("/")[2]

    def is_in(self, root: Path) -> bool:
        """Whether all that it holds is in ``root``."""
        # An archive in the archive goes when it is unpacked.
        inner = (root / f"{path}.zip" for path in self.holds if "/" in path)
        whole = all(_number_of_files(root / path) >= count for path, count in self.holds.items())
        return whole and not any(path.exists() for path in inner)


def _annotations(*names: str) -> dict[str, int]:
    return {f"annotations/{name}{split}2017.json": 1 for name in names for split in ("train", "val")}


#: What ``--parts`` may name, in the order in which it is fetched.
ARCHIVES = {
    "annotations": Archive(
        "annotations/annotations_trainval2017.zip",
        "f4bbac642086de4f52a3fdda2de5fa2c",
        _annotations("instances_", "captions_", "person_keypoints_"),
        growth=5,
    ),
    "val": Archive("zips/val2017.zip", "442b8da7639aecaf257c1dceb8ba8c80", {"val2017": 5000}),
    "train": Archive("zips/train2017.zip", "cced6f7f71b7629ddf16f17bbcfab6b2", {"train2017": 118287}),
    "test_info": Archive(
        "annotations/image_info_test2017.zip",
        "85da7065e5e600ebfee8af1edb634eb5",
        {f"annotations/image_info_test{kind}2017.json": 1 for kind in ("", "-dev")},
        growth=20,
    ),
    "test": Archive("zips/test2017.zip", "77ad2c53ac5d0aea611d422c0938fb35", {"test2017": 40670}),
    "unlabeled_info": Archive(
        "annotations/image_info_unlabeled2017.zip",
        "ede38355d5c3e5251bb7f8b68e2c068f",
        {"annotations/image_info_unlabeled2017.json": 1},
        growth=20,
    ),
    "unlabeled": Archive("zips/unlabeled2017.zip", "7ebc562819fdb32847aab79530457326", {"unlabeled2017": 123403}),
    # Pictures of segments come in archives within the archive.
    "panoptic": Archive(
        "annotations/panoptic_annotations_trainval2017.zip",
        "4170db65fc022c9c296af880dbca6055",
        {
            **_annotations("panoptic_"),
            **{f"annotations/panoptic_{split}2017": 1 for split in ("train", "val")},
        },
        growth=3,
    ),
    "stuff": Archive(
        "annotations/stuff_annotations_trainval2017.zip",
        "2a27c15a2dfcbd2e1c9276dc23cac101",
        {
            **_annotations("stuff_"),
            **{f"annotations/stuff_{split}2017_pixelmaps": 1 for split in ("train", "val")},
        },
        growth=5,
    ),
}
DEFAULT_PARTS = ("annotations", "val", "train")


def download_coco(
    root: str | os.PathLike[str],
    parts: Sequence[str] = DEFAULT_PARTS,
    *,
    url_base: str = URL_BASE,
    keep_archives: bool = False,
    tries: int = 10,
) -> None:
    """Fetch parts of COCO and unpack them, as far as they are not there.

    What was fetched before an interruption is kept in ``*.part`` files and gone on with.

    Args:
        root: folder to fill, ``data/coco`` in mmdet's configs.
        parts: of ``ARCHIVES``.
        url_base: where the archives lie; a mirror has the same paths below it.
        keep_archives: leave them in ``root``; otherwise each that was fetched is removed once it is unpacked. One that
            was there before is always left.
        tries: in a row that bring nothing, before it gives up.

    Raises:
        ValueError: an unknown part or no URL of http or https.
        DownloadError: no room, no answer, or other bytes than COCO's.

    Example:
        >>> download_coco("data/coco", ("annotations", "val"))  # doctest: +SKIP
    """
    unknown = set(parts).difference(ARCHIVES)
    if unknown or not parts:
        raise ValueError(f"parts must be of {', '.join(ARCHIVES)}; got {', '.join(sorted(unknown)) or 'none'}")
    if urlsplit(url_base).scheme not in ("http", "https") or not urlsplit(url_base).netloc:
        raise ValueError(f"url_base must be of the form http://HOST or https://HOST, got {url_base!r}")
    folder = Path(root)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".download.lock", timeout=0), _progress() as progress:
            archives = [archive for part, archive in ARCHIVES.items() if part in parts]
            _download(archives, folder, url_base, keep_archives, tries, progress)
    except Timeout:
        raise DownloadError(f"another download into {folder} is at work; wait for it, or end it") from None
    except UnpackingError as error:
        raise DownloadError(str(error)) from error
    except OSError as error:
        raise DownloadError(f"{error}. The same command goes on from here") from error


def _download(archives: list[Archive], root: Path, url_base: str, keep: bool, tries: int, progress: Progress) -> None:
    missing = [archive for archive in archives if not archive.is_in(root)]
    for archive in archives:
        if archive not in missing:
            progress.console.out(f"{archive.name}: unpacked in {root} already", highlight=False)
    # They need no server; and whoever has put them there, they are not ours to remove.
    present = {archive.name for archive in missing if (root / archive.name).exists()}
    for archive in missing:
        if archive.name in present:
            check_md5(root / archive.name, archive.md5, progress, remove=False)
    urls = {a.name: f"{url_base.rstrip('/')}/{a.path}" for a in missing if a.name not in present}
    # A server that does not answer at first is rarely one that will.
    first = min(tries, 4)
    sizes = {name: remote_size(url, first, progress.console.out) for name, url in urls.items()}
    check_room(missing, sizes, root, keep)
    for archive in missing:
        file = root / archive.name
        if archive.name not in present:
            fetch(urls[archive.name], file, sizes[archive.name], tries, progress)
            check_md5(file, archive.md5, progress, remove=True)
        unpack(file, root, progress)
        if not archive.is_in(root):
            raise DownloadError(f"{file} is unpacked, but {root} has not all of {', '.join(archive.holds)}")
        if not keep and archive.name not in present:
            file.unlink()
        left = "; the archive was there before, and is left" if archive.name in present else ""
        progress.console.out(f"{archive.name}: unpacked in {root}{left}", highlight=False)


def check_room(archives: Iterable[Archive], sizes: dict[str, int], root: Path, keep: bool) -> None:
    """Check that there is room for the largest that the archives and what they hold will be at a time.

    Raises:
        DownloadError: there is not.
    """
    unpacked, most = 0.0, 0.0
    for archive in archives:
        # Of one that is here, its own list of members will tell.
        if archive.name not in sizes:
            continue
        size, part = sizes[archive.name], part_of(root / archive.name)
        here = part.stat().st_size if part.exists() else 0
        most = max(most, unpacked + size - here + archive.growth * size)
        unpacked += archive.growth * size + (size if keep else 0) - here
    free = shutil.disk_usage(root).free
    if free < most:
        raise DownloadError(
            f"{root} has {free / 2**30:.2f} GiB free, and the archives and what they hold take {most / 2**30:.2f} GiB "
            "more. Free some room, give another folder, or fewer --parts"
        )


def _number_of_files(path: Path) -> int:
    if path.is_dir():
        return sum(1 for entry in os.scandir(path) if not entry.name.endswith(".part"))
    return int(path.is_file())


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn())
    return Progress(*columns, TimeRemainingColumn())
