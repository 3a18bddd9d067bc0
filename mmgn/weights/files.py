"""Checkpoints on disk: read by what they are, whatever they are called, and written by their suffix."""

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from mmgn.compat import arrays, checkpoint
from mmgn.compat.checkpoint import CheckpointError
from mmgn.version import __version__
from mmgn.weights import safe_pickle

# How torch.save began files before it wrote archives: its magic number, pickled.
_LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
# What holds the weights: mmengine's, detectron2's and Detectron's files.
_WRAPPERS = ("state_dict", "model", "blobs")
_SUFFIXES = {"detectron": (".pkl",), "detectron2": (".pkl", ".pth")}


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read the weights of a checkpoint, running no code that it may hold.

    Args:
        path: a file of torch.save, of safetensors, or a pickle of numpy arrays as Detectron and detectron2 publish.

    Returns:
        Tensors by their keys; what is none is left as it is.

    Raises:
        CheckpointError: it does not exist, cannot be read, asks to run code or holds no weights.
        ImportError: it is of safetensors, which is not installed.
    """
    content = _read(path)
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, and no weights by their names.")
    try:
        state = {key: _tensor(value) for key, value in content.items()}
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path} holds an array that torch has no dtype for: {error}") from error
    if not any(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path} holds no weights: its keys are such as {list(state)[:5]}.")
    return state


def _read(path: Path) -> Any:
    if not path.is_file():
        return _read_torch(path)
    with path.open("rb") as file:
        head = file.read(len(_LEGACY_TORCH))
        size = path.stat().st_size
        # Their layout: the header's length in 8 bytes, then its JSON.
        if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size:
            return _read_safetensors(path, size)
        if head.startswith(b"\x80") and head != _LEGACY_TORCH:
            file.seek(0)
            return _read_pickle(file, path, size)
    return _read_torch(path)


def _read_torch(path: Path) -> Any:
    from mmengine.runner import CheckpointLoader

    checkpoint.install()
    return CheckpointLoader.load_checkpoint(str(path), map_location="cpu", logger="silent")


def _read_pickle(file: BinaryIO, path: Path, size: int) -> Any:
    try:
        return safe_pickle.load(file)
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"cannot load the checkpoint {path} ({size} bytes): {error}.") from error
    # What foreign bytes lead an unpickler to raise is not limited.
    except Exception as error:
        raise CheckpointError(
            f"cannot load the checkpoint {path} ({size} bytes): it cannot be read, so it was cut off, or is something "
            f"else ({type(error).__name__}: {error})."
        ) from error


def _read_safetensors(path: Path, size: int) -> Any:
    torch_io = _safetensors("reading")
    from safetensors import SafetensorError

    try:
        return torch_io.load_file(str(path))
    except SafetensorError as error:
        raise CheckpointError(f"cannot load the checkpoint {path} ({size} bytes): {error}.") from error


def _safetensors(doing: str) -> ModuleType:
    try:
        import safetensors.torch
    except ImportError as error:
        raise ImportError(f"{doing} safetensors needs the package: pip install safetensors ({error})") from error
    return safetensors.torch


def _tensor(value: Any) -> Any:
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def check_destination(path: Path, layout: str, *, force: bool = False) -> None:
    """Refuse a place or a format that cannot be written, before there is any work.

    Raises:
        FileExistsError: the file exists, and ``force`` is not set.
        FileNotFoundError: its folder does not exist.
        ValueError: the suffix is not one of the layout's.
    """
    suffixes = _SUFFIXES.get(layout, (".pth", ".safetensors"))
    if path.suffix not in suffixes:
        raise ValueError(f"weights for {layout} are written as {' or '.join(suffixes)}, and the file is to be {path}.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} does not exist; make it first.")
    if path.is_dir() or (path.exists() and not force):
        raise FileExistsError(f"{path} exists; name another file, or overwrite it with --force.")


def write_checkpoint(
    path: Path, state: Mapping[str, Tensor], layout: str, *, origin: str = "", force: bool = False
) -> None:
    """Write weights as the layout's code base reads them; the file is there whole or not at all.

    Args:
        path: ``.pth``, ``.safetensors``, or ``.pkl`` for Detectron and detectron2.
        state: the weights under the layout's keys.
        layout: one of ``LAYOUTS``.
        origin: for the file's meta data, where its format has any.
        force: overwrite a file.

    Raises:
        FileExistsError, FileNotFoundError, ValueError: as :func:`check_destination`.
        TypeError: a dtype that the format does not have, or a tensor that is not dense.
        ImportError: safetensors is not installed.
    """
    check_destination(path, layout, force=force)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        _write(partial, state, layout, path.suffix, origin)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _whole(key: str, value: Tensor) -> Tensor:
    if value.layout is not torch.strided:
        raise TypeError(f"{key} is a tensor in {value.layout}, and weights are dense; save it as {key}.to_dense().")
    # A view would be saved with all it is a view of.
    return value.detach().contiguous().clone()


def _array(key: str, value: Tensor) -> np.ndarray:
    try:
        array = value.numpy()
    except TypeError as error:
        raise TypeError(f"numpy, and so a .pkl, has no {value.dtype}, which {key} is of.") from error
    if array.dtype.str[1:] not in arrays.NUMBERS:
        raise TypeError(f"{key} is of {value.dtype}, which no .pkl is read with; write it in another dtype.")
    return array


def _write(path: Path, state: Mapping[str, Tensor], layout: str, suffix: str, origin: str) -> None:
    whole = {key: _whole(key, value) for key, value in state.items()}
    if suffix == ".safetensors":
        # Its save_file has an error of its own for a full disk.
        path.write_bytes(_safetensors("writing").save(whole, metadata={"format": "pt", "converted_from": origin}))
        return
    content: dict[str, Any] = dict(whole)
    if suffix == ".pkl":
        content = {key: _array(key, value) for key, value in whole.items()}
    if layout == "detectron":
        content = {"blobs": content}
    elif layout == "detectron2":
        # By the author it knows the format, and then finds a backbone's place in a model by itself.
        content = {"model": content, "__author__": "mmgn", "matching_heuristics": True}
    elif layout == "mmdet":
        content = {"meta": {"converted_from": origin, "mmgn_version": __version__}, "state_dict": content}
    with path.open("wb") as file:
        if suffix == ".pkl":
            safe_pickle.dump(content, file)
        else:
            torch.save(content, file)
