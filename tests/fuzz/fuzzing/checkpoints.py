"""Checkpoints of all formats: read or refused, converted into every layout, written and read again; nothing runs.

A corpus' file is a checkpoint as it lies on disk, or JSON that says what to save: ``format``, ``wrapper`` and
``state``, whose tensors are of ``dtype`` and ``shape``.
"""

import io
import pickle
import warnings
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import torch
from mmengine.runner import CheckpointLoader
from safetensors.torch import save

import mmgn  # noqa: F401  # it has mmengine load weights only
from fuzzing import trees
from mmgn.compat.checkpoint import CheckpointError
from mmgn.weights import LAYOUTS, convert, read_checkpoint, write_checkpoint
from mmgn.weights.layouts import table

warnings.filterwarnings("ignore", module="torch")
_DTYPES = ("float32", "float16", "bfloat16", "float64", "int64", "uint8", "bool", "complex64", "float8_e5m2")
_KINDS = (*_DTYPES, "sparse", "quantized", "expanded", "parameter", "meta")
_FORMATS = ("zip", "legacy", "pickle", "safetensors")
_WRAPPERS = ("", "state_dict", "model", "blobs")
_VALUES = (*trees.VALUES, *({"dtype": kind, "shape": shape} for kind in _KINDS for shape in ([2, 2, 1, 1], [])))
# Parts of pickles: what asks for functions, calls, sizes and places beyond the end.
_OPCODES = (
    *(b"cos\nsystem\n", b"cbuiltins\neval\n", b"c__builtin__\ngetattr\n", b"\x8c\x02os\x8c\x06system\x93"),
    *(b"ctorch\nload\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n", b"cnumpy\ndtype\n"),
    *(b"cmmengine.config.config\nConfigDict\n", b"cnumpy._core.multiarray\nscalar\n", b"cnumpy\nndarray\n"),
    *(b"(Vtouch ran\ntR", b"X\x02\x00\x00\x00f8", b"\x95" + b"\xff" * 8, b"\x8e" + b"\x7f" * 8, b"T\xff\xff\xff\x7f"),
    *(b"r\xff\xff\xff\xff", b"j\xff\xff\xff\xff", b"K\x00", b"J\xff\xff\xff\xff", b"\x8a\xff"),
    *(bytes([opcode]) for opcode in b"()tRboi\x81\x92N02}]usaeQ."),
)


def fresh(rng: Random) -> bytes:
    """Return a checkpoint of a ResNet of one block a stage or of the Mask R-CNN on it; of plain JSON mostly."""
    layout = rng.choice(list(LAYOUTS))
    names = table(LAYOUTS[layout], (1, 1, 1, 1), detector=rng.random() < 0.5)
    state = {
        theirs: {"dtype": "float32", "shape": _shape(ours, first=layout == "detectron")}
        for ours, theirs in names.items()
        # As many convolutions and outputs as heads have; none of a residual block has a bias.
        if not any(part in ours for part in ("convs.4", "convs.5", "convs.6", "convs.7", "conv1.bias", "conv2.bias"))
    }
    document = {"format": rng.choice(_FORMATS), "wrapper": rng.choice(_WRAPPERS), "state": state}
    if rng.random() < 0.3:
        document["state"] = dict(rng.sample(list(state.items()), 3))
        return _saved(document)
    return trees.write(document)


def mutate(data: bytes, rng: Random) -> bytes:
    """Change what a document says, or the bytes of a file; of an archive mostly those of one of its members."""
    if data.startswith(b"{"):
        return trees.mutate(data, rng, _VALUES, raw=0.02)
    if data.startswith(b"PK") and rng.random() < 0.8:
        try:
            return _archive(data, rng)
        # Broken by an earlier mutation.
        except Exception:
            return trees.mutate_bytes(data, rng)
    return _pickled(data, rng)


def check(data: bytes, folder: Path) -> None:
    """Read, convert, write, read again."""
    document = trees.parse(data) if data.startswith(b"{") else None
    if isinstance(document, dict):
        try:
            data = _saved(document)
        # What no format holds; safetensors and pickle raise what they like.
        except Exception:
            return
    path = folder / "weights.bin"
    path.write_bytes(data)
    try:
        CheckpointLoader.load_checkpoint(str(path), map_location="cpu", logger="silent")
    except CheckpointError as error:
        _readable(error)
    try:
        state = read_checkpoint(path)
    except CheckpointError as error:
        _readable(error)
        return
    for layout in LAYOUTS:
        try:
            converted, report = convert(state, layout)
        except ValueError as error:
            _readable(error)
            continue
        str(report)
        for suffix in (".pkl",) if layout == "detectron" else (".pkl", ".pth") if layout == "detectron2" else (".pth",):
            _write(folder / f"out{suffix}", converted, layout)


def _write(path: Path, converted: dict[str, Any], layout: str) -> None:
    try:
        write_checkpoint(path, converted, layout, force=True)
    except TypeError as error:
        _readable(error)
        return
    again = read_checkpoint(path)
    assert list(again) == list(converted)
    for key, value in converted.items():
        assert again[key].dtype == value.dtype and again[key].shape == value.shape, key


def _readable(error: Exception) -> None:
    assert 0 < len(str(error)) < 3000, f"{len(str(error))} characters"
    str(error).encode()


def _shape(ours: str, first: bool) -> list[int]:
    rows = {"fc_cls": 4, "fc_reg": 16 if first else 12, "conv_logits": 4 if first else 3}
    rows_of = next((n for name, n in rows.items() if name in ours), 2)
    flat = ours.endswith("bias") or "gn" in ours or "downsample.1" in ours
    return [rows_of] if flat else [rows_of, 2] if "fc" in ours else [rows_of, 2, 1, 1]


def _saved(document: dict[str, Any]) -> bytes:
    """Return a file as its format's own library writes it."""
    state = document.get("state")
    if isinstance(state, dict):
        state = {key: _tensor(value) for key, value in state.items()}
    kind, wrapper = document.get("format"), document.get("wrapper")
    if kind == "safetensors":
        return save(state)
    content = {wrapper: state, "meta": {}} if wrapper else state
    buffer = io.BytesIO()
    if kind == "pickle":
        arrays = {k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in dict(state).items()}
        return pickle.dumps({wrapper: arrays} if wrapper else arrays, protocol=2)
    torch.save(content, buffer, _use_new_zipfile_serialization=kind != "legacy")
    return buffer.getvalue()


def _tensor(value: Any) -> Any:
    if not isinstance(value, dict) or "dtype" not in value:
        return value
    kind, shape = value["dtype"], value.get("shape")
    dtype = getattr(torch, kind, None) if kind in _DTYPES else torch.float32
    if not isinstance(shape, list) or len(shape) > 6 or not all(type(n) is int and 0 <= n <= 64 for n in shape):
        return value
    if kind == "expanded":
        return torch.zeros(()).expand(shape)
    made = torch.zeros(shape, dtype=dtype, device="meta" if kind == "meta" else "cpu")
    if made.numel() > 10_000:
        return value
    if kind == "sparse":
        return made.to_sparse()
    if kind == "quantized":
        return torch.quantize_per_tensor(made, 0.1, 0, torch.quint8)
    return torch.nn.Parameter(made) if kind == "parameter" else made


def _archive(data: bytes, rng: Random) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        names = old.namelist()
        chosen = next((name for name in names if name.endswith("data.pkl")), None)
        if chosen is None or rng.random() < 0.2:
            chosen = rng.choice(names)
        for name in names:
            content = old.read(name)
            if name == chosen:
                content = _pickled(content, rng)
                if rng.random() < 0.05:
                    continue
                if rng.random() < 0.05:
                    name = rng.choice(("../x", "/x", "archive/data.pkl", "archive/version", "archive/constants.pkl"))
            new.writestr(name, content)
    return out.getvalue()


def _pickled(data: bytes, rng: Random) -> bytes:
    if rng.random() < 0.5:
        return trees.mutate_bytes(data, rng)
    place = rng.randrange(len(data) + 1)
    return data[:place] + rng.choice(_OPCODES) + data[place + rng.choice((0, 0, 1, 5)) :]
