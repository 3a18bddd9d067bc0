"""Weights-only loading and resuming, on every torch and for every scheme of a checkpoint's name.

Before torch 2.6 mmengine's ``torch.load`` runs whatever a pickle says; its http loader does on any
torch. From 2.6 on, mmengine's own checkpoints are refused for what its message hub stores.
"""

import functools
import itertools
import os
import pickle
import re
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import serialization

from mmgn.compat import download, file_damage

_FORCE, _FORCE_NO = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"

_REFUSED_GLOBAL = re.compile(r"GLOBAL (\S+) (?:was not an allowed|whose module)")
# Where classes that hold data are defined; of another package's the name alone does not tell what it would run.
_DATA_PACKAGES = ("torch", "numpy", "mmengine", "mmcv", "mmdet", "mmgn", "collections", "argparse", "pathlib")
_UNPICKLER_SAYS = re.compile(r"WeightsUnpickler error:\s*([^\n]+)")
_DAMAGED = re.compile(r"PytorchStreamReader|hasRecord|unexpected EOF|corrupt|TorchScript|\.tar format")
_UNREADABLE = (pickle.UnpicklingError, EOFError)
# Of a GPU, its memory included; memory of the host a broken file asks for at will.
_MACHINE = re.compile(r"\b(CUDA|HIP|MPS|NPU)\b")


class CheckpointError(RuntimeError):
    """A checkpoint that does not load: which file, its size in bytes, why, and the way out."""


class CheckpointNotFoundError(CheckpointError, FileNotFoundError):
    """There is no such checkpoint; mmengine's own class for it stays a base."""


class _WeightsOnly:
    """Context that holds torch's own switch; loads of several threads may overlap."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._saved: dict[str, str | None] = {}
        self.depth = 0

    def __enter__(self) -> None:
        with self._lock:
            if self.depth == 0:
                # torch raises where both are set, and many set the second to get mmengine going at all.
                self._saved = {name: os.environ.pop(name, None) for name in (_FORCE, _FORCE_NO)}
                os.environ[_FORCE] = "1"
            self.depth += 1

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self.depth -= 1
            if self.depth == 0:
                del os.environ[_FORCE]
                os.environ.update({name: value for name, value in self._saved.items() if value is not None})


_WEIGHTS_ONLY = _WeightsOnly()


@functools.cache
def install() -> None:
    """Load and resume weights-only from now on; needs mmengine. A second call changes nothing."""
    from mmengine.runner import checkpoint

    allow_mmengine()
    # A TorchVersion compares as a version.
    if torch.__version__ < "2.6":
        _refuse_archives()
    if hasattr(checkpoint, "_safe_torch_load"):
        # OneDL's mmengine allows the real getattr here and, where that does not do, loads again unsafely.
        checkpoint._safe_torch_load = functools.partial(torch.load, weights_only=True)
    checkpoint.load_url = download.checked(checkpoint.load_url)
    # The one door for all schemes, those that users register too. Behind it the switch overrides even an
    # explicit opt-out, such as torch.hub's load_url makes.
    loader = checkpoint.CheckpointLoader
    guarded = _guarded(loader.load_checkpoint.__func__, checkpoint.load_from_local)
    loader.load_checkpoint = classmethod(guarded)


def active() -> bool:
    """Whether mmengine's ``CheckpointLoader`` loads through this module; needs mmengine."""
    from mmengine.runner import CheckpointLoader

    return CheckpointLoader.load_checkpoint.__module__ == __name__


def damage(path: str | Path) -> str | None:
    """Return why a local checkpoint file cannot be loaded; None where it is whole.

    Reads it once, for the checksums of an archive's records, and keeps none of its tensors in memory. A folder, such
    as DeepSpeed's checkpoints are, is not looked into.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return None
    try:
        cause = file_damage.foreign(path) or file_damage.flipped(path)
        if cause is None:
            allow_mmengine()
            with _WEIGHTS_ONLY:
                # torch maps archives alone.
                torch.load(path, map_location="cpu", weights_only=True, mmap=file_damage.is_archive(path))
    except FileNotFoundError:
        return "it does not exist"
    except Exception as error:
        return _cause(path, error) or f"it cannot be read ({type(error).__name__}: {error})"
    return cause


def allow_mmengine() -> None:
    """Put what mmengine stores on torch's allow-list, none of which runs code or reaches into modules.

    numpy's own functions, which others may have put there, come off it: files with arrays load all the same.
    """
    import numpy as np

    ours = _mmengine_globals()
    names = {f"{item.__module__}.{item.__qualname__}" for item in ours}

    def is_numpys(item: Any) -> bool:
        # With the name that it has in pickles, or without.
        what, name = item if isinstance(item, tuple) else (item, f"{item.__module__}.{item.__qualname__}")
        return name in names or (isinstance(what, type) and issubclass(what, (np.ndarray, np.dtype)))

    with _ALLOW_LIST:
        known = serialization.get_safe_globals()
        if any(item not in ours and is_numpys(item) for item in known):
            serialization.clear_safe_globals()
            serialization.add_safe_globals([item for item in known if item in ours or not is_numpys(item)])
        serialization.add_safe_globals([item for item in ours if item not in known])


_ALLOW_LIST = threading.Lock()


@functools.cache
def _mmengine_globals() -> list[Any]:
    import _codecs

    from mmengine.config import ConfigDict
    from mmengine.logging import HistoryBuffer
    from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

    # torch does without numpy.
    from mmgn.compat import arrays

    methods = {
        HistoryBuffer: ("min", "max", "current", "mean"),
        OneCycleParamScheduler: ("_annealing_cos", "_annealing_linear"),
    }

    # pickle's protocol 2, which torch.save uses, spells a function of a class getattr(cls, name).
    def method(owner: type, name: str) -> Any:
        if name not in methods.get(owner, ()):
            raise pickle.UnpicklingError(f"getattr({owner!r}, {name!r}) is not among what mmengine stores")
        return getattr(owner, name)

    return [
        *(HistoryBuffer, OneCycleParamScheduler, ConfigDict, set, _codecs.encode),
        _named("builtins.getattr", method),
        # By their own names their state may be set; numpy's own would take whatever a file gives them.
        *(arrays.Array, arrays.ComplexDtype),
        *(_named("numpy.ndarray", arrays.Array), _named("numpy.dtype", arrays.ComplexDtype)),
        _named("builtins.bytes", arrays.no_bytes),
        # numpy 2 moved these: files of either numpy load on either.
        *(_named(f"numpy.{core}.multiarray._reconstruct", arrays.reconstruct) for core in ("core", "_core")),
        *(_named(f"numpy.{core}.multiarray.scalar", arrays.scalar) for core in ("core", "_core")),
    ]


def _named(path: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` under the name a pickle knows it by; torch < 2.6 takes the name from the object alone."""

    def alias(*args: Any) -> Any:
        return function(*args)

    alias.__module__, _, alias.__name__ = path.rpartition(".")
    alias.__qualname__ = alias.__name__
    return alias


def _refuse_archives() -> None:
    """Refuse TorchScript and tar files as torch 2.6 does; CVE-2025-32434 tells what they did before."""
    is_torchscript, legacy_load = serialization._is_torchscript_zip, serialization._legacy_load

    def refuse_torchscript(archive: Any) -> bool:
        found = is_torchscript(archive)
        if found and _WEIGHTS_ONLY.depth:
            raise pickle.UnpicklingError("a TorchScript archive may run code when it is loaded")
        return found

    def refuse_tar(file: Any, *args: Any, **kwargs: Any) -> Any:
        if _WEIGHTS_ONLY.depth:
            start = file.tell()
            if tarfile.is_tarfile(file):
                raise pickle.UnpicklingError("torch's legacy .tar format has no weights-only reader")
            file.seek(start)
        return legacy_load(file, *args, **kwargs)

    serialization.__dict__.update(_is_torchscript_zip=refuse_torchscript, _legacy_load=refuse_tar)


def _guarded(load: Callable[..., Any], load_from_local: Callable[..., Any]) -> Callable[..., Any]:
    def load_checkpoint(cls: Any, filename: str, map_location: Any = None, logger: Any = "current") -> Any:
        # Before every load, as leaving anybody's `with safe_globals([...])` takes its items off for all.
        allow_mmengine()
        local = cls._get_checkpoint_loader(filename) is load_from_local
        path = Path(filename).expanduser() if local else _cached(filename)
        flipped = file_damage.flipped(path) if path is not None and path.is_file() else None
        if flipped is not None:
            raise CheckpointError(_describe(filename, path, local, flipped))
        try:
            with _WEIGHTS_ONLY:
                return load(cls, filename, map_location, logger)
        except FileNotFoundError as error:
            if not local:
                raise
            raise CheckpointNotFoundError(_missing(filename)) from error
        except download.HashError as error:
            raise CheckpointError(f"cannot load the checkpoint {filename}: {error}.") from error
        except Exception as error:
            path = Path(filename).expanduser() if local else _cached(filename)
            cause = _cause(path, error)
            if cause is None:
                raise
            raise CheckpointError(_describe(filename, path, local, cause)) from error

    load_checkpoint.__doc__ = load.__doc__
    return load_checkpoint


def _cause(path: Path | None, error: Exception) -> str | None:
    """Why a checkpoint does not load; ``None`` where the file is not to blame (network, memory, device)."""
    foreign = None if path is None else file_damage.foreign(path)
    if foreign is not None:
        return foreign
    text = str(error)
    refused = _REFUSED_GLOBAL.search(text)
    if refused:
        ignored = f"; {_FORCE_NO} has no say here" if _FORCE_NO in os.environ else ""
        asks = f"it asks for {refused[1]}, which weights-only loading refuses, as it may run code{ignored}. "
        if not _may_be_data(refused[1]):
            return f"{asks}Do not use the file unless you trust where it comes from"
        return (
            f"{asks}Do not use the file unless that is a class you know and trust: then allow it with "
            f"torch.serialization.add_safe_globals([{refused[1]}]) before loading"
        )
    # What foreign bytes lead an unpickler to raise is not limited; torch.load alone has read the file there.
    astray = path is not None and not _MACHINE.search(text)
    if astray or isinstance(error, _UNREADABLE) or _DAMAGED.search(text):
        says = _UNPICKLER_SAYS.search(text)
        return f"it cannot be read ({type(error).__name__}: {says[1] if says else text.partition('. ')[0]})"
    return None


def _may_be_data(name: str) -> bool:
    """Tell a class from a function and a registry by its capital, without importing what a file names."""
    own = name.rpartition(".")[2]
    return name.partition(".")[0] in _DATA_PACKAGES and own[:1].isupper() and not own.isupper()


def _cached(filename: str) -> Path | None:
    """Where torch.hub keeps the download of an http(s) checkpoint, if it is there."""
    path = download.cached(filename)
    return path if filename.startswith(("http://", "https://")) and path.is_file() else None


def _describe(filename: str, path: Path | None, local: bool, cause: str) -> str:
    size = "" if path is None else f" ({path.stat().st_size} bytes)"
    if local and path is not None:
        return f"cannot load the checkpoint {path}{size}: {cause}.{_others(path)}"
    kept = f"The download is kept in {path}"
    if path is None:
        kept = f"If this was a download, it is kept in {Path(torch.hub.get_dir(), 'checkpoints')}"
    return f"cannot load the checkpoint {filename}{size}: {cause}. {kept}; delete it there to download it again."


def _missing(filename: str) -> str:
    if "://" in filename:
        return f"no checkpoint {filename}: no loader is registered for this scheme, and no file has this name"
    path = Path(filename).expanduser().absolute()
    if not path.is_dir() and not path.parent.is_dir():
        return f"no checkpoint {path}: the folder {path.parent} does not exist"
    return f"no checkpoint file {path}.{_others(path) or ' Its folder holds no complete *.pth either.'}"


def _others(path: Path) -> str:
    folder = path if path.is_dir() else path.parent
    newest = sorted(folder.glob("*.pth"), key=lambda p: p.stat().st_mtime, reverse=True)
    whole = (p.name for p in newest if p != path and file_damage.is_archive(p) and file_damage.flipped(p) is None)
    names = ", ".join(itertools.islice(whole, 5))
    return f" Complete in {folder}, newest first: {names}." if names else ""
