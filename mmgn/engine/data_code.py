"""Data files that run code when mmdet reads them: pickles, YAML and object arrays, looked at before."""

import re
from collections.abc import Callable, Collection
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import yaml  # type: ignore[import-untyped]

from mmgn.compat import arrays
from mmgn.weights import safe_pickle


def check_runs_nothing(entry: Any, where: str, keys: Collection[str] | None = None) -> None:
    """Check the files that a data set or metric names (``ann_file``, ``proposal_file`` and whatever else).

    mmengine's ``load`` and ``numpy.load(allow_pickle=True)`` run what a file says. Those that hold numbers, text and
    plain containers pass, proposals as mmdet dumps them too.

    Args:
        entry: settings of a data set or metric.
        where: the setting that it stands in, for the message.
        keys: the settings that are read; None for all but those that begin with ``out``, which are written.

    Raises:
        ValueError: a file asks to run code, or cannot be read, or lies where it cannot be looked at.
    """
    root = entry.get("data_root") or ""
    local = (entry.get("backend_args") or {}).get("backend") in (None, "local", "LocalBackend")
    for key, value in entry.items():
        read = _READERS.get(value.rpartition(".")[2]) if isinstance(value, str) else None
        if read is None or (key.startswith("out") if keys is None else key not in keys):
            continue
        setting = f"{where}.{key}"
        if "://" in value or "://" in root or not local:
            raise ValueError(
                f"{setting}={value!r} may run code when it is read, and cannot be looked at before, as it is no local "
                "file: bring it to this machine"
            )
        if (path := Path(root) / value).is_file():
            _check(path, read, setting)


def _check(path: Path, read: Callable[[Path], Any], setting: str) -> None:
    try:
        read(path)
    # What foreign bytes lead a reader to raise is not limited.
    except Exception as error:
        why = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(
            f"{path} ({setting}) is not read, as mmdet would run the code that it may hold: {why}. If you trust it, "
            "load it yourself and save it again as plain lists, dicts, numbers and text (.json, .pkl), or as an array "
            "of numbers (.npy)"
        ) from error


class _Dtype(arrays.Dtype):
    """Stands for ``numpy.dtype``, of numbers and of text no longer than a path may be."""

    @staticmethod
    def takes(code: str) -> bool:
        return code in arrays.NUMBERS or bool(re.fullmatch(r"U[1-9]\d{0,3}", code))


class _InstanceData(safe_pickle.StandIn):
    """Stands for mmengine's, as which mmdet's DumpProposals keeps an image's boxes."""

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
            raise ValueError(f"the state of an InstanceData is {state!r:.80}")


_PATHLIB = ("pathlib", "pathlib._local")
_PATHS = ("Posix", "PurePosix", "Windows", "PureWindows")
_NAMES = {
    "mmengine.structures.instance_data.InstanceData": _InstanceData,
    # Protocols below 4 have no sets.
    **dict.fromkeys(("builtins.set", "__builtin__.set"), set),
    "numpy.dtype": _Dtype,
    # Python 3.13 has them in a module of their own.
    **dict.fromkeys((f"{m}.{kind}Path" for m in _PATHLIB for kind in _PATHS), PurePath),
}


def _read_pickle(path: Path) -> None:
    with path.open("rb") as file:
        safe_pickle.load(file, _NAMES)


def _read_yaml(path: Path) -> None:
    with path.open("rb") as file:
        yaml.load(file, getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _read_array(path: Path) -> None:
    np.load(path, mmap_mode="r", allow_pickle=False)


# By suffix, as mmengine chooses.
_READERS: dict[str, Callable[[Path], None]] = {
    **dict.fromkeys(("pkl", "pickle"), _read_pickle),
    **dict.fromkeys(("yaml", "yml"), _read_yaml),
    "npy": _read_array,
}
