"""Checkpoints on disk: each format read and written, and every bad file a clear error."""

import gzip
import os
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch

pytest.importorskip("mmengine")

from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader

from mmgn.compat.checkpoint import CheckpointError
from mmgn.weights import check_destination, read_checkpoint, write_checkpoint

WEIGHTS = OrderedDict(
    {
        "conv1.weight": torch.arange(24.0).reshape(2, 3, 2, 2),
        "gn1.weight": torch.tensor([1.0, -0.0], dtype=torch.float16),
        "gn1.bias": torch.tensor([0.5, float("nan")], dtype=torch.float64),
    }
)


def arrays(weights=WEIGHTS):
    return {key: value.numpy() for key, value in weights.items()}


def same(one, other):
    bits = [
        a.dtype == b.dtype and a.numpy().tobytes() == b.numpy().tobytes()
        for a, b in zip(one.values(), other.values(), strict=True)
    ]
    return list(one) == list(other) and all(bits)


def save(tmp_path, content, name="file.pth", **kwargs):
    torch.save(content, tmp_path / name, **kwargs)
    return tmp_path / name


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_torchs_files_are_read_with_what_lies_beside_the_weights(tmp_path, wrapper, legacy):
    history = HistoryBuffer()
    history.update(1.0)
    content = {wrapper: WEIGHTS, "message_hub": {"loss": history}, "iteration": 7} if wrapper else WEIGHTS
    path = save(tmp_path, content, _use_new_zipfile_serialization=not legacy)
    assert same(read_checkpoint(path), WEIGHTS)


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("wrapper", [None, "blobs", "model"])
def test_pickles_of_arrays_are_read_whatever_their_name(tmp_path, wrapper, protocol):
    path = tmp_path / "weights.pth"
    content = {wrapper: arrays(), "__author__": "someone", "matching_heuristics": True} if wrapper else arrays()
    path.write_bytes(pickle.dumps(content, protocol))
    assert same(read_checkpoint(path), WEIGHTS)


def test_safetensors_are_read_whatever_their_name(tmp_path):
    save_file = pytest.importorskip("safetensors.torch").save_file
    save_file(WEIGHTS, tmp_path / "model.bin")
    read = read_checkpoint(tmp_path / "model.bin")
    assert same({key: read[key] for key in WEIGHTS}, WEIGHTS)


@pytest.mark.parametrize(
    ("layout", "suffix"),
    [
        *[("mmdet", ".pth"), ("mmdet", ".safetensors"), ("torchvision", ".pth"), ("timm", ".safetensors")],
        *[("detectron", ".pkl"), ("detectron2", ".pkl"), ("detectron2", ".pth")],
    ],
)
def test_what_is_written_is_read_again(tmp_path, layout, suffix):
    if suffix == ".safetensors":
        pytest.importorskip("safetensors")
    path = tmp_path / f"out{suffix}"
    write_checkpoint(path, WEIGHTS, layout)
    read = read_checkpoint(path)
    assert same({key: read[key] for key in WEIGHTS}, WEIGHTS)
    assert os.listdir(tmp_path) == [path.name]


def test_each_code_base_finds_its_own_format(tmp_path):
    """As mmengine loads, and as DetectionCheckpointer of detectron2 and load_object of Detectron do."""
    for layout, suffix in [("mmdet", ".pth"), ("detectron", ".pkl"), ("detectron2", ".pkl"), ("torchvision", ".pth")]:
        write_checkpoint(tmp_path / f"{layout}{suffix}", WEIGHTS, layout, origin="a test")
    ours = CheckpointLoader.load_checkpoint(str(tmp_path / "mmdet.pth"), logger="silent")
    assert same(ours["state_dict"], WEIGHTS)
    assert ours["meta"]["converted_from"] == "a test"
    blobs = pickle.loads((tmp_path / "detectron.pkl").read_bytes(), encoding="latin1")
    assert list(blobs) == ["blobs"]
    assert all(isinstance(blob, np.ndarray) for blob in blobs["blobs"].values())
    data = pickle.loads((tmp_path / "detectron2.pkl").read_bytes(), encoding="latin1")
    assert data["matching_heuristics"] is True
    # "Caffe2" would have the names taken for Detectron's.
    assert data["__author__"] != "Caffe2"
    assert list(data["model"]) == list(WEIGHTS)
    assert same(torch.load(tmp_path / "torchvision.pth", weights_only=True), WEIGHTS)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.complex64], ids=str)
def test_a_pickle_is_not_written_of_what_none_is_read_with(tmp_path, dtype):
    with pytest.raises(TypeError, match=str(dtype)):
        write_checkpoint(tmp_path / "out.pkl", {"conv1.weight": torch.zeros(2, dtype=dtype)}, "detectron2")
    assert os.listdir(tmp_path) == []


def test_a_view_is_written_without_what_it_is_a_view_of(tmp_path):
    write_checkpoint(tmp_path / "out.pth", {"a": torch.zeros(1_000_000)[:2]}, "mmdet")
    assert (tmp_path / "out.pth").stat().st_size < 10_000


def test_numpy_has_no_bfloat16(tmp_path):
    with pytest.raises(TypeError, match=r"no torch\.bfloat16, which conv1_w is of"):
        write_checkpoint(tmp_path / "out.pkl", {"conv1_w": torch.ones(2, dtype=torch.bfloat16)}, "detectron")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("layout", "name", "error", "says"),
    [
        ("mmdet", "there.pth", FileExistsError, "exists.*--force"),
        ("mmdet", "folder.pth", FileExistsError, "exists"),
        ("mmdet", "none/out.pth", FileNotFoundError, "folder .*none does not exist"),
        ("mmdet", "out.pkl", ValueError, r"mmdet are written as \.pth or \.safetensors"),
        ("detectron", "out.pth", ValueError, r"detectron are written as \.pkl,"),
        ("detectron2", "out.safetensors", ValueError, r"as \.pkl or \.pth"),
        ("mmdet", "out", ValueError, "written as"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_any_work(tmp_path, layout, name, error, says):
    (tmp_path / "there.pth").write_text("mine")
    (tmp_path / "folder.pth").mkdir()
    for refuse in (check_destination, lambda path, layout: write_checkpoint(path, WEIGHTS, layout)):
        with pytest.raises(error, match=says):
            refuse(tmp_path / name, layout)
    assert (tmp_path / "there.pth").read_text() == "mine"


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "out.pkl"
    path.write_text("old")
    with pytest.raises(TypeError):
        write_checkpoint(path, {"a": torch.ones(1, dtype=torch.bfloat16)}, "detectron", force=True)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["out.pkl"]
    write_checkpoint(path, WEIGHTS, "detectron", force=True)
    assert same(read_checkpoint(path), WEIGHTS)


class Gadget:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("save_as", ["pickle", "zip", "legacy"])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, save_as):
    marker, path = tmp_path / "ran", tmp_path / "model.pkl"
    content = {"state_dict": {**arrays(), "bad": Gadget(marker)}}
    if save_as == "pickle":
        path.write_bytes(pickle.dumps(content, 4))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=save_as == "zip")
    with pytest.raises(CheckpointError, match=r"it asks for (posix|nt)\.system, which"):
        read_checkpoint(path)
    assert not marker.exists()
    torch.load(path, weights_only=False) if save_as != "pickle" else pickle.loads(path.read_bytes())
    assert marker.exists(), "the file was harmless, so the test shows nothing"


def whole_pickle():
    return pickle.dumps({"blobs": arrays()}, 2)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "it is empty"),
        (b"\n<!DOCTYPE html><html>Not found</html>", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (gzip.compress(whole_pickle()), r"not a checkpoint: it begins with b'\\x1f\\x8b"),
        (b"hello, world", "not a checkpoint: it begins with b'hello, world'"),
        (b"(dp0\nS'conv1_w'\np1\nI1\ns.", "not a checkpoint"),
        (whole_pickle()[:-20], "cannot be read, so it was cut off"),
        (whole_pickle()[:2], "cannot be read, so it was cut off"),
        (b"\x80\x02" + bytes(range(256)), "cannot (load|be read)"),
        (pickle.dumps([1, 2]), "holds a list, and no weights by their names"),
        (pickle.dumps({1: np.ones(1)}), "holds a dict, and no weights by their names"),
        (pickle.dumps({"epoch": 1}), r"holds no weights: its keys are such as \['epoch'\]"),
        (b"\x80\x02}X\x01\x00\x00\x00acnumpy\nndarray\n)\x81s.", r"it calls numpy\.ndarray"),
        (b"\x10\0\0\0\0\0\0\0{" + b"x" * 40, "cannot load the checkpoint"),
        (b"PK\x03\x04" + b"\0" * 100, "truncated"),
    ],
    ids=[
        *("empty", "html", "lfs", "gzip", "text", "protocol 0", "cut", "cut short", "noise", "list", "numbers as keys"),
        *("no weights", "no array", "safetensors", "zip"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_told_what_it_is(tmp_path, content, says):
    if "{x" in str(content):
        pytest.importorskip("safetensors")
    path = tmp_path / "R-50-GN.pkl"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=says) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)


def test_a_cut_archive_and_what_is_no_file_are_refused(tmp_path):
    path = save(tmp_path, WEIGHTS)
    path.write_bytes(path.read_bytes()[:-30])
    assert not zipfile.is_zipfile(path)
    with pytest.raises(CheckpointError, match="truncated"):
        read_checkpoint(path)
    with pytest.raises(CheckpointError, match="no checkpoint file"):
        read_checkpoint(tmp_path / "nowhere.pkl")
    with pytest.raises(CheckpointError, match="no checkpoint file"):
        read_checkpoint(tmp_path)


def test_without_safetensors_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "safetensors", None)
    monkeypatch.setitem(__import__("sys").modules, "safetensors.torch", None)
    with pytest.raises(ImportError, match="pip install safetensors"):
        write_checkpoint(tmp_path / "out.safetensors", WEIGHTS, "mmdet")
    (tmp_path / "in.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    with pytest.raises(ImportError, match="pip install safetensors"):
        read_checkpoint(tmp_path / "in.safetensors")
    assert os.listdir(tmp_path) == ["in.safetensors"]
