"""An annotation file parsed once: the ranks and workers of a machine, and later runs, map its items from a cache."""

import gc
import hashlib
import json
import os
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock, Timeout
from mmdet import __version__ as mmdet_version
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmengine.dataset import BaseDataset, force_full_init
from mmengine.logging import print_log

# Raise it whenever the same items would be written as other bytes.
FORMAT = 1
#: Seconds to wait for another process that parses the same file; ten times COCO takes minutes.
PATIENCE = 3600.0
# What a data set's items do not depend on.
_NOT_SETTINGS = {"pipeline", "data_list", "cache_dir", "max_refetch", "serialize_data", "_fully_initialized"}


class Items(NamedTuple):
    """The items' JSON end to end, where each ends, and the ids of the categories in label order."""

    data: np.ndarray
    ends: np.ndarray
    cat_ids: list[int]


class SharedItems(BaseDataset):
    """First among a data set's bases, it has the items parsed once and mapped by every other process.

    mmengine keeps the parsed items as pickles in an array of each rank. Here they lie in a file, whose pages all
    processes of a machine share. The first process parses and writes, the others wait for it; later runs find the
    file. It is rebuilt where the annotation file (path, size, time of change) or a setting of the data set is another,
    or its checksum is wrong. Items are kept as JSON, as they came: unlike a pickle's, reading it runs no code, whoever
    wrote the file.

    Args:
        cache_dir: where the file lies; ``$XDG_CACHE_HOME/mmgn/annotations`` or ``~/.cache/mmgn/annotations`` if not
            given. A local disk is faster than a network's.

    Raises:
        ValueError: the annotation file is not a local one, ``serialize_data=False``, no image is left, or an item is
            not one that JSON gives back unchanged (proposals, ``return_classes``).
        TimeoutError: another process parsed for an hour.
        OSError: the cache cannot be written.

    Example:
        >>> class SharedObjects365(SharedItems, Objects365V2Dataset): ...
    """

    data_bytes: np.ndarray
    data_address: np.ndarray
    cat_ids: list[int]
    _fully_initialized: bool

    def __init__(self, *args: Any, cache_dir: str | None = None, **kwargs: Any) -> None:
        cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        self.cache_dir = cache_dir or os.path.join(cache, "mmgn", "annotations")
        super().__init__(*args, **kwargs)

    def full_init(self) -> None:
        """Map the items; where no cache fits, parse them as the parent does, and write it."""
        if self._fully_initialized:
            return
        self._check()
        path, stamp = self._cache_file()
        # A file that fits is whole: it is put in its place by a rename.
        items = read_items(path, stamp) or self._parse(path, stamp)
        self.data_bytes, self.data_address, self.cat_ids = items
        self.cat2label = {cat_id: label for label, cat_id in enumerate(self.cat_ids)}
        # Of use to the filter alone: per category the ids of its images.
        self.__dict__.pop("cat_img_map", None)
        self._fully_initialized = True

    def _parse(self, path: Path, stamp: dict[str, Any]) -> Items:
        """Write the items' file, or wait for the process that does, and map it."""
        os.makedirs(self.cache_dir, exist_ok=True)
        try:
            with FileLock(f"{path}.lock", timeout=PATIENCE):
                items = read_items(path, stamp)
                if items is None:
                    print_log(f"{self.ann_file} is parsed, once, into {path}", logger="current")
                    super().full_init()
                    write_items(path, stamp, Items(self.data_bytes, self.data_address, self.cat_ids))
                    # From here on the mapping serves, as in every other process.
                    items = read_items(path, stamp)
        except Timeout:
            raise TimeoutError(
                f"another process has held {path}.lock for {PATIENCE:.0f} s; end it, or set another cache_dir"
            ) from None
        if items is None:
            raise OSError(f"{path} does not read as it was written a moment ago; set another cache_dir")
        return items

    @force_full_init
    def get_data_info(self, idx: int) -> dict[str, Any]:
        """Return one item, as the parent does."""
        if not -len(self) <= idx < len(self):
            raise IndexError(f"item {idx} of a data set of {len(self)}")
        idx %= len(self)
        start = self.data_address[idx - 1] if idx else 0
        item = json.loads(self.data_bytes[start : self.data_address[idx]].tobytes())
        item["sample_idx"] = idx
        return item

    def _serialize_data(self) -> tuple[np.ndarray, np.ndarray]:
        if not self.data_list:
            raise ValueError(f"{self.ann_file} has no image that filter_cfg={self.filter_cfg!r} leaves")
        texts: list[Any] = self.data_list
        # In place, so that an item's objects go as its text comes.
        for i, item in enumerate(texts):
            texts[i] = _encode(item)
        ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
        data = np.frombuffer(b"".join(texts), np.uint8)
        self.data_list.clear()
        gc.collect()
        return data, ends

    def _check(self) -> None:
        if not self.serialize_data:
            raise ValueError(f"serialize_data=False keeps nothing that can be shared; leave it out: {self.ann_file}")
        if not os.path.isfile(self.ann_file):
            raise ValueError(
                f"annotation file {self.ann_file!r} is no local file; put it there, or take a data set that does not "
                "share its items, such as CocoDataset"
            )

    def _cache_file(self) -> tuple[Path, dict[str, Any]]:
        """Return where the cache lies, and the stamp by which it is known to fit."""
        source = os.path.realpath(self.ann_file)
        identity = {
            "source": source,
            "kind": f"{type(self).__module__}.{type(self).__qualname__}",
            "settings": {key: value for key, value in vars(self).items() if key not in _NOT_SETTINGS},
        }
        name = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
        stat = os.stat(source)
        made_by = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "format": FORMAT, "mmdet": mmdet_version}
        stamp = json.loads(json.dumps(identity | made_by))
        return Path(self.cache_dir, f"{Path(source).stem}-{name}.items"), stamp


@DATASETS.register_module()
class SharedCocoDataset(SharedItems, CocoDataset):
    """mmdet's ``CocoDataset``, same arguments and same items, parsed once for all processes of a machine."""


def _encode(item: dict[str, Any]) -> bytes:
    try:
        text = json.dumps(item, separators=(",", ":"))
        same = json.loads(text) == item
    except TypeError:
        same = False
    if not same:
        raise ValueError(
            f"the item of {item.get('img_path')!r} holds what JSON does not give back unchanged (arrays, tuples, NaN; "
            "proposal_file and return_classes bring such): take a data set that does not share its items"
        )
    return text.encode()


def write_items(path: Path, stamp: dict[str, Any], items: Items) -> None:
    """Write a cache file, complete or not at all: a line of JSON, the array of ends, the items.

    Raises:
        OSError: it cannot be written, and nothing is left of it.
    """
    checksum = zlib.crc32(items.data.data, zlib.crc32(items.ends.data))
    header = {"stamp": stamp, "cat_ids": list(items.cat_ids), "checksum": checksum}
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(partial, "wb") as file:
            file.write(json.dumps(header).encode() + b"\n")
            np.save(file, items.ends, allow_pickle=False)
            items.data.tofile(file)
        os.replace(partial, path)
    except OSError as error:
        raise OSError(
            f"the annotation cache cannot be written ({error}); point cache_dir to a disk with room for it, or take "
            "CocoDataset, which needs none"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def read_items(path: Path, stamp: dict[str, Any]) -> Items | None:
    """Map a cache file; None where there is none, it is of another ``stamp``, or it is damaged."""
    try:
        with open(path, "rb") as file:
            header = json.loads(file.readline())
            if header["stamp"] != stamp:
                return None
            ends = np.load(file, allow_pickle=False)
            start = file.tell()
            checksum = zlib.crc32(ends.data)
            while chunk := file.read(1 << 20):
                checksum = zlib.crc32(chunk, checksum)
            if checksum != header["checksum"]:
                return None
            return Items(np.memmap(file, np.uint8, "r", start, (int(ends[-1]),)), ends, header["cat_ids"])
    # No file, or one that was cut or written over: then it is not what write_items left.
    except (FileNotFoundError, ValueError, LookupError, TypeError, EOFError):
        return None
