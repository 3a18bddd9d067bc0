"""Data files that run code when mmdet reads them: pickles, YAML and object arrays, looked at before."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml  # type: ignore[import-untyped]

from mmgn.weights import safe_pickle


def check_runs_nothing(entry: Any, where: str) -> None:
    """Check the files that a data set or metric names (``ann_file``, ``proposal_file`` and whatever else).

    mmengine's ``load`` and ``numpy.load(allow_pickle=True)`` run what a file says. Those that hold numbers, text and
    plain containers pass, proposals as mmdet dumps them too.

    Args:
        entry: settings of a data set or metric.
        where: the setting that it stands in, for the message.

    Raises:
        ValueError: a file asks to run code, or cannot be read, or lies where it cannot be looked at.
    """
    root = entry.get("data_root") or ""
    for key, value in entry.items():
        read = _READERS.get(value.rpartition(".")[2]) if isinstance(value, str) else None
        if read is None:
            continue
        setting = f"{where}.{key}"
        if "://" in value or "://" in root or entry.get("backend_args"):
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
            f"{path} ({setting}) is not read, as mmdet would run the code that it may hold: {why}"
        ) from error


class _InstanceData(safe_pickle.StandIn):
    """Stands for mmengine's, as which mmdet's DumpProposals keeps an image's boxes."""

    def set(self, state: Any) -> None:
        if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
            raise ValueError(f"the state of an InstanceData is {state!r:.80}")


_NAMES = {
    "mmengine.structures.instance_data.InstanceData": _InstanceData,
    # Protocols below 4 have no sets.
    **dict.fromkeys(("builtins.set", "__builtin__.set"), set),
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
