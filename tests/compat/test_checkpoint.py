"""Run as a script, ``python test_checkpoint.py WORK_DIR CHECKPOINT``, this file resumes the toy training."""

import io
import json
import os
import pickle
import random
import subprocess
import sys
import threading
import types
import zipfile
from collections import Counter, OrderedDict
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import gadgets
import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("mmengine")

from mmengine.config import ConfigDict
from mmengine.hooks import EMAHook
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.optim.scheduler import param_scheduler
from mmengine.registry import PARAM_SCHEDULERS
from mmengine.runner import CheckpointLoader, Runner, load_checkpoint
from mmengine.runner import checkpoint as mmengine_checkpoint

from mmgn.compat import checkpoint
from mmgn.compat.checkpoint import CheckpointError

checkpoint.install()

FORCE, FORCE_NO = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
load = partial(CheckpointLoader.load_checkpoint, map_location="cpu", logger="silent")


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "marker"


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Serves ``tmp_path / 'www'`` on this machine, with download caches of its own."""
    (tmp_path / "www").mkdir()
    (tmp_path / "mmengine").mkdir()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("MMENGINE_HOME", str(tmp_path / "mmengine"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(tmp_path / "www")))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def schemes(monkeypatch):
    """Restores the registered schemes after a test that adds its own."""
    monkeypatch.setattr(CheckpointLoader, "_schemes", dict(CheckpointLoader._schemes))


def name_under(scheme, url, tmp_path, monkeypatch):
    """Name of www/x.pth under ``scheme``; what cannot be had on one machine is pointed at that file."""
    path = tmp_path / "www" / "x.pth"
    if scheme == "file":
        return str(path)
    if scheme == "http":
        return f"{url}/x.pth"
    if scheme in ("open-mmlab", "openmmlab"):
        target = f"{url}/x.pth" if scheme == "open-mmlab" else str(path)
        (tmp_path / "mmengine" / "open_mmlab.json").write_text(json.dumps({"x": target}))
    elif scheme in ("torchvision", "mmcls"):
        monkeypatch.setattr(mmengine_checkpoint, f"get_{scheme}_models", lambda: {"x": f"{url}/x.pth"})
    elif scheme == "s3":
        from mmengine.fileio.backends import registry_utils

        backend = type("Bucket", (), {"get": lambda self, _: path.read_bytes()})
        monkeypatch.setitem(registry_utils.backends, "petrel", backend)
    elif scheme == "pavi":
        model = types.SimpleNamespace(name="x.pth", download=lambda to: Path(to).write_bytes(path.read_bytes()))
        cloud = types.SimpleNamespace(modelcloud=types.SimpleNamespace(get=lambda _: model))
        monkeypatch.setitem(sys.modules, "pavi", cloud)
    else:
        # As users write it; torch.hub itself asks for the unsafe unpickler.
        CheckpointLoader.register_scheme(
            "ours://", lambda name, map_location: torch.hub.load_state_dict_from_url(f"{url}/x.pth")
        )
    return f"{scheme}://x"


@pytest.mark.parametrize(
    "scheme", ["file", "http", "open-mmlab", "openmmlab", "torchvision", "mmcls", "s3", "pavi", "ours"]
)
@pytest.mark.parametrize("content", ["good", "gadget"])
def test_every_scheme_loads_weights_and_runs_nothing(scheme, content, serve, schemes, tmp_path, monkeypatch, marker):
    # Set by many to get mmengine going on torch >= 2.6; it must not open the door here.
    monkeypatch.setenv(FORCE_NO, "1")
    weight = torch.randn(3)
    path = tmp_path / "www" / "x.pth"
    if content == "gadget":
        path.write_bytes(gadgets.as_zip(gadgets.raw("exec", marker)))
    else:
        torch.save({"state_dict": {"backbone.w": weight}, "extra": HistoryBuffer([1.0], [1])}, path)
    name = name_under(scheme, serve, tmp_path, monkeypatch)
    if content == "gadget":
        with pytest.raises(CheckpointError, match=r"asks for \S*exec"):
            load(name)
        assert not marker.exists()
    else:
        state_dict = load(name)["state_dict"]
        assert torch.equal(state_dict["w" if scheme == "mmcls" else "backbone.w"], weight)


@pytest.mark.parametrize("before", [{}, {FORCE: "0"}, {FORCE_NO: "1"}, {FORCE: "1", FORCE_NO: "1"}])
@pytest.mark.parametrize("fails", [False, True])
def test_switch_holds_during_the_load_only(before, fails, schemes, monkeypatch):
    for name in (FORCE, FORCE_NO):
        monkeypatch.delenv(name, raising=False)
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    seen = []

    def loader(name, map_location):
        seen.append((os.environ.get(FORCE), os.environ.get(FORCE_NO)))
        return {"fails": 1 / 0} if fails else {}

    CheckpointLoader.register_scheme("ours://", loader)
    if fails:
        with pytest.raises(ZeroDivisionError):
            load("ours://x")
    else:
        load("ours://x")
    assert seen == [("1", None)]
    assert {name: os.environ[name] for name in (FORCE, FORCE_NO) if name in os.environ} == before


def test_switch_outlives_the_first_of_two_overlapping_loads(schemes, monkeypatch):
    monkeypatch.delenv(FORCE, raising=False)
    slow_started, fast_done, seen = threading.Event(), threading.Event(), []

    def slow(name, map_location):
        slow_started.set()
        fast_done.wait(10)
        seen.append(os.environ.get(FORCE))

    CheckpointLoader.register_scheme("slow://", slow)
    CheckpointLoader.register_scheme("fast://", lambda name, map_location: None)
    thread = threading.Thread(target=load, args=("slow://x",))
    thread.start()
    slow_started.wait(10)
    load("fast://x")
    fast_done.set()
    thread.join()
    assert seen == ["1"] and FORCE not in os.environ


def test_install_twice_wraps_once():
    wrapped = CheckpointLoader.load_checkpoint
    checkpoint.install()
    assert CheckpointLoader.load_checkpoint == wrapped and checkpoint.active()


def test_leaving_safe_globals_of_others_costs_nothing(tmp_path):
    if not hasattr(torch.serialization, "safe_globals"):
        pytest.skip("torch.serialization.safe_globals came with torch 2.5")
    torch.save(HistoryBuffer([1.0], [1]), tmp_path / "x.pth")
    with torch.serialization.safe_globals([HistoryBuffer, np.ndarray]):
        pass
    assert load(str(tmp_path / "x.pth")).mean() == 1.0


def plain(value):
    """``value`` as something ``==`` can compare, types kept."""
    if isinstance(value, HistoryBuffer):
        return [plain(part) for part in value.data] + [value._max_length if hasattr(value, "_max_length") else 0]
    if isinstance(value, np.ndarray):
        return np.ndarray, str(value.dtype), value.tolist()
    if isinstance(value, (np.generic, torch.Tensor)):
        return type(value), str(value.dtype), value.tolist()
    if isinstance(value, dict):
        return type(value), {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value), [plain(item) for item in value]
    return value


def scheduler_state(name):
    arguments = {
        "ConstantLR": {},
        "CosineAnnealingLR": {"T_max": 4},
        "CosineRestartLR": {"periods": [2], "eta_min": 0.0},
        "ExponentialLR": {"gamma": 0.5},
        "LinearLR": {},
        "MultiStepLR": {"milestones": [1, 2]},
        "OneCycleLR": {"eta_max": 1.0, "total_steps": 5},
        "PolyLR": {},
        "ReduceOnPlateauLR": {"monitor": "loss"},
        "StepLR": {"step_size": 1},
    }[name]
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1, momentum=0.9)
    return PARAM_SCHEDULERS.build({"type": name, "optimizer": optimizer, **arguments}).state_dict()


STORED = {
    "history": lambda: HistoryBuffer([1.0, 2.0], [1, 3], 10),
    "no history": lambda: HistoryBuffer(),
    "scalars": lambda: [np.float64(0.25), np.float32(2), np.int64(7), np.bool_(True), np.float16(1)],
    "arrays": lambda: [np.arange(4), np.eye(2, dtype=np.float32), np.array([True]), np.ones(1, np.complex64)],
    "dataset_meta": lambda: {"classes": ("a", "b"), "palette": [(1, 2, 3)], "sigmas": np.ones(2, np.float32)},
    "config": lambda: ConfigDict(classes=("a",), more=ConfigDict(x=1)),
    "odds and ends": lambda: {"set": {1, 2}, "bytes": b"\x00\xff", "none": None, "c": Counter("aab")},
    "grad scaler": lambda: torch.amp.GradScaler("cpu", enabled=True).state_dict(),
    "optimizer": lambda: stepped_optimizer(torch.optim.AdamW).state_dict(),
    **{
        name: partial(scheduler_state, name)
        for name in (
            *("ConstantLR", "CosineAnnealingLR", "CosineRestartLR", "ExponentialLR", "LinearLR"),
            *("MultiStepLR", "OneCycleLR", "PolyLR", "ReduceOnPlateauLR", "StepLR"),
        )
    },
}


def stepped_optimizer(cls):
    parameter = nn.Parameter(torch.ones(2))
    optimizer = cls([parameter], lr=0.1)
    parameter.grad = torch.ones(2)
    optimizer.step()
    return optimizer


@pytest.mark.parametrize("what", STORED)
@pytest.mark.parametrize("numpy", ["numpy.core", "numpy._core"])
def test_what_mmengine_stores_comes_back(what, numpy, tmp_path):
    stored = STORED[what]()
    buffer = io.BytesIO()
    # The legacy format holds bare pickles, in which numpy's old and new module names can be put.
    torch.save(stored, buffer, _use_new_zipfile_serialization=False)
    other = "numpy._core" if numpy == "numpy.core" else "numpy.core"
    path = tmp_path / "x.pth"
    path.write_bytes(buffer.getvalue().replace(f"c{other}.".encode(), f"c{numpy}.".encode()))
    assert plain(load(str(path))) == plain(stored)


def test_one_cycle_resumes_with_its_own_annealing(tmp_path):
    torch.save(scheduler_state("OneCycleLR"), tmp_path / "x.pth")
    anneal = load(str(tmp_path / "x.pth"))["anneal_func"]
    assert anneal is param_scheduler.OneCycleParamScheduler._annealing_cos


class Attribute:
    def __init__(self, owner, name):
        self.owner, self.name = owner, name

    def __reduce__(self):
        return getattr, (self.owner, self.name)


@pytest.mark.parametrize("name", ["__init__", "update", "register_statistics", "__globals__", "__reduce__"])
def test_getattr_reaches_nothing_but_statistics(name, tmp_path):
    torch.save({"x": Attribute(HistoryBuffer, name)}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="not among what mmengine stores"):
        load(str(tmp_path / "x.pth"))
    assert getattr not in torch.serialization.get_safe_globals()


class Reduced:
    """Pickled as a call, and the state that is set of what it gives."""

    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize(
    "state",
    [
        # The flags of a dtype that holds references; numpy frees them.
        *((3, "<", None, None, None, -1, -1, flags) for flags in (1, 4, 63)),
        # Its parts, of which numpy expects a tuple.
        *((3, "<", part, None, None, -1, -1, 0) for part in (ConfigDict, b"A" * 64, "A" * 64)),
        (3, "<", None, ("a",), {"a": (1, 1 << 40)}, 8, 8, 0),
        (3, "<", None, None, None, 1 << 40, -1, 0),
        (3, "x", None, None, None, -1, -1, 0),
    ],
    ids=str,
)
@pytest.mark.parametrize("archive", [True, False])
@pytest.mark.parametrize("numpys_own", [False, True])
def test_states_of_dtypes_are_checked_before_numpy_sees_them(state, archive, numpys_own, tmp_path):
    dtype = Reduced(np.dtype, ("i8", False, True), state)
    array = Reduced(np.zeros(0).__reduce__()[0], (np.ndarray, (0,), b"b"), (1, (1,), dtype, False, b"A" * 8))
    torch.save({"w": torch.zeros(1), "x": array}, tmp_path / "x.pth", _use_new_zipfile_serialization=archive)
    if numpys_own:
        # As many have done to load mmengine's checkpoints.
        torch.serialization.add_safe_globals([np.ndarray, np.dtype, type(np.dtype("i8")), np.zeros(0).__reduce__()[0]])
    with pytest.raises(CheckpointError, match="dtype is not what its code says"):
        load(str(tmp_path / "x.pth"))
    assert np.dtype not in torch.serialization.get_safe_globals()
    assert checkpoint.damage(tmp_path / "x.pth") is not None


@pytest.mark.parametrize(
    "state",
    [
        (1, (0,) + (1,) * 64, np.dtype("i8"), False, b""),
        (1, (0, 2**61), np.dtype("i8"), False, b""),
        (1, (2,), np.dtype("i8"), False, b"A" * 8),
        (1, (-1,), np.dtype("i8"), False, b""),
        (1, (1,), 5, False, b"A"),
    ],
)
def test_states_of_arrays_are_checked_before_numpy_sees_them(state, tmp_path):
    torch.save(Reduced(np.zeros(0).__reduce__()[0], (np.ndarray, (0,), b"b"), state), tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="array"):
        load(str(tmp_path / "x.pth"))


def test_arrays_are_saved_again_as_numpys_own(tmp_path):
    array = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    torch.save({"x": array, "history": HistoryBuffer([1.0], [1])}, tmp_path / "x.pth")
    once = load(str(tmp_path / "x.pth"))
    assert isinstance(once["x"], np.ndarray) and once["x"].flags.f_contiguous and once["x"].flags.writeable
    assert type(once["x"] + 1) is np.ndarray and type(once["x"].mean()) is np.float64
    assert type(once["history"].mean()) is np.float64
    once["history"].update(3.0)
    for protocol in (2, 5):
        again = pickle.loads(pickle.dumps(once, protocol))
        assert type(again["x"]) is np.ndarray and again["x"].tolist() == array.tolist()
        assert type(again["history"].data[0]) is np.ndarray and again["history"].mean() == 2.0


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([None]), np.zeros(1, [("x", "f4")])])
def test_dtypes_of_no_fixed_size_are_refused(array, tmp_path):
    torch.save(array, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(str(tmp_path / "x.pth"))


def torchscript(path):
    torch.jit.save(torch.jit.script(nn.Linear(1, 1)), path)


def legacy_tar(path):
    path.write_bytes(gadgets.as_tar(pickle.dumps({}, 2)))


@pytest.mark.parametrize(("write", "says"), [(torchscript, "TorchScript"), (legacy_tar, r"\.tar format")])
@pytest.mark.filterwarnings("ignore")
def test_archives_that_weights_only_once_let_through(write, says, tmp_path):
    write(tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=says):
        load(str(tmp_path / "x.pth"))


@pytest.mark.filterwarnings("ignore")
def test_torchscript_of_others_still_loads(tmp_path):
    torchscript(tmp_path / "x.pt")
    assert torch.jit.load(tmp_path / "x.pt")(torch.ones(1, 1)).shape == (1, 1)


def checkpoint_bytes(**options):
    buffer = io.BytesIO()
    torch.save({"state_dict": {"w": torch.zeros(1000)}}, buffer, **options)
    return buffer.getvalue()


LEGACY = {"_use_new_zipfile_serialization": False}
BROKEN = {
    "empty": (b"", "it is empty"),
    "git-lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
    "html": (b"\n<!DOCTYPE html><html>Sign in</html>", "web page"),
    "text": (b"hello there, general", "begins with b'hello there, gen'"),
    "text like a pickle": (b"could not find\nthat\n", "begins with b'could not find"),
    "truncated": (checkpoint_bytes()[:-300], "truncated"),
    "truncated early": (checkpoint_bytes()[:10], "truncated"),
    "legacy, truncated": (checkpoint_bytes(**LEGACY)[:-300], "cannot be read"),
    "legacy, truncated early": (checkpoint_bytes(**LEGACY)[:60], "cannot be read"),
    "pickle of no tensors": (pickle.dumps({"a": 1}, 2), "cannot be read"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_file_is_described_and_left_alone(kind, tmp_path):
    content, says = BROKEN[kind]
    path = tmp_path / "epoch_3.pth"
    path.write_bytes(content)
    (tmp_path / "epoch_1.pth").write_bytes(content)
    (tmp_path / "epoch_2.pth").write_bytes(checkpoint_bytes())
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(nn.Linear(1, 1), str(path))
    message = str(caught.value)
    assert f"{path} ({len(content)} bytes)" in message and says in message and "\n" not in message
    assert "epoch_2.pth" in message and "epoch_1.pth" not in message
    assert caught.value.__cause__ is not None
    assert {p.name for p in tmp_path.iterdir()} == {"epoch_1.pth", "epoch_2.pth", "epoch_3.pth"}
    assert path.read_bytes() == content


def flipped(content, bit):
    return b"".join((content[: bit // 8], bytes([content[bit // 8] ^ 1 << bit % 8]), content[bit // 8 + 1 :]))


@pytest.mark.parametrize("seed", range(3))
def test_no_flipped_bit_is_taken_for_a_weight(seed, tmp_path):
    path, pick = tmp_path / "x.pth", random.Random(seed)
    weights = {"w": torch.randn(500), "b": torch.randn(3)}
    torch.save({"state_dict": weights, "history": HistoryBuffer([1.0], [1])}, path)
    whole = path.read_bytes()
    assert checkpoint.damage(path) is None
    # In the weights, which torch.load itself does not look at, the directory, and anywhere.
    at = whole.index(weights["w"].numpy().tobytes())
    places = [(at, at + 2000), (len(whole) - 1000, len(whole)), (0, len(whole))]
    for bit in (pick.randrange(8 * start, 8 * stop) for start, stop in places for _ in range(20)):
        path.write_bytes(flipped(whole, bit))
        why = checkpoint.damage(path)
        try:
            loaded = load(str(path))
        except CheckpointError as error:
            assert why and why in str(error) and "\n" not in str(error), bit
        else:
            # In what is between the records.
            assert why is None and not at <= bit // 8 < at + 2000, bit
            assert plain(loaded["state_dict"]) == plain(weights)


def test_checksums_are_read_once_for_all_that_load_a_file(tmp_path, monkeypatch):
    path, read = tmp_path / "x.pth", []
    test = zipfile.ZipFile.testzip
    monkeypatch.setattr(zipfile.ZipFile, "testzip", lambda archive: read.append(archive) or test(archive))
    weights = {"w": torch.ones(500)}
    torch.save(weights, path)
    os.utime(path, (1e9, 1e9))
    assert checkpoint.damage(path) is None
    load(str(path))
    assert len(read) == 1
    content = path.read_bytes()
    path.write_bytes(flipped(content, 8 * content.index(weights["w"].numpy().tobytes())))
    assert "checksum" in checkpoint.damage(path)
    os.utime(path, (1e9 + 1, 1e9 + 1))
    assert "checksum" in checkpoint.damage(path)


@pytest.mark.parametrize("write", [{}, LEGACY])
def test_damage_is_told_of_every_file_that_does_not_load(write, tmp_path):
    path, pick = tmp_path / "x.pth", random.Random(0)
    whole = checkpoint_bytes(**write)
    path.write_bytes(whole)
    assert checkpoint.damage(path) is None and checkpoint.damage(tmp_path) is None
    for length in (0, 1, 4, len(whole) - 1, *(pick.randrange(len(whole)) for _ in range(20))):
        path.write_bytes(whole[:length])
        assert checkpoint.damage(str(path)), length
    assert checkpoint.damage(tmp_path / "none.pth") == "it does not exist"
    torch.save({"x": Path("a")}, path)
    assert "asks for pathlib" in checkpoint.damage(path)


def test_archive_without_checksums_loads(tmp_path):
    if not hasattr(torch.serialization, "set_crc32_options"):
        pytest.skip("torch.serialization.set_crc32_options came with torch 2.6")
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.ones(2)}, tmp_path / "x.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(load(str(tmp_path / "x.pth"))["w"], torch.ones(2))


def test_archive_that_claims_more_than_it_holds_is_not_unpacked(tmp_path):
    path = tmp_path / "x.pth"
    torch.save({"w": torch.ones(2)}, path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data/1", bytes(2**24))
    with pytest.raises(CheckpointError, match="more than the file has"):
        load(str(path))


def test_page_kept_as_a_download_is_named(serve, tmp_path):
    (tmp_path / "www" / "x.pth").write_text("<html>Sign in</html>")
    kept = tmp_path / "torch" / "hub" / "checkpoints" / "x.pth"
    with pytest.raises(CheckpointError, match="web page") as caught:
        load(f"{serve}/x.pth")
    assert f"The download is kept in {kept}; delete it" in str(caught.value) and kept.exists()


def test_refused_class_is_named_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setenv(FORCE_NO, "1")
    torch.save({"x": Path("a")}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError) as caught:
        load(str(tmp_path / "x.pth"))
    assert "add_safe_globals([pathlib." in str(caught.value) and f"{FORCE_NO} has no say" in str(caught.value)


@pytest.mark.parametrize("function", [os.system, subprocess.check_output, exec, torch.hub.load, np.load, Fraction])
def test_no_recipe_for_what_is_no_class_of_data(function, tmp_path):
    gadget = type("Gadget", (), {"__reduce__": lambda _: (function, ("1",))})
    torch.save({"x": gadget()}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"asks for .* Do not use the file unless you trust where it") as caught:
        load(str(tmp_path / "x.pth"))
    assert "add_safe_globals" not in str(caught.value)


def test_missing_file_points_at_its_neighbours(tmp_path):
    (tmp_path / "epoch_2.pth").write_bytes(checkpoint_bytes())
    for name in (tmp_path / "epoch_3.pth", tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no checkpoint file .*newest first: epoch_2\.pth"):
            load(str(name))
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        load(str(tmp_path / "nowhere" / "x.pth"))
    with pytest.raises(FileNotFoundError, match="no loader is registered"):
        load("opem-mmlab://resnet50_gn")


def test_errors_that_are_not_the_files_fault_pass_unchanged(serve, tmp_path, schemes):
    with pytest.raises(KeyError, match="no-such-model"):
        load("open-mmlab://no-such-model")
    with pytest.raises(OSError, match="404"):
        load(f"{serve}/nothing.pth")
    if not torch.cuda.is_available():
        (tmp_path / "x.pth").write_bytes(checkpoint_bytes())
        with pytest.raises(RuntimeError, match="map_location") as caught:
            CheckpointLoader.load_checkpoint(str(tmp_path / "x.pth"), "cuda", "silent")
        # Before 2.6 torch itself passes every RuntimeError off as the unpickler's.
        assert isinstance(caught.value, CheckpointError) == (torch.__version__ < "2.6")


class Toy(BaseModel):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, inputs, targets, mode):
        return {"loss": (self.layers(inputs) - targets).square().mean()}


class Samples(torch.utils.data.Dataset):
    metainfo = {"classes": ("a",), "sigmas": np.array([0.5, 0.25], np.float32)}  # noqa: RUF012

    def __init__(self):
        self.inputs = torch.randn(24, 4, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, index):
        return {"inputs": self.inputs[index], "targets": self.inputs[index].sum(0, keepdim=True)}


def train(work_dir, resume_from=None):
    torch.manual_seed(1)
    runner = Runner(
        Toy(),
        str(work_dir),
        train_dataloader={
            "dataset": Samples(),
            "sampler": {"type": "DefaultSampler", "shuffle": True},
            "batch_size": 4,
            "num_workers": 0,
            "collate_fn": {"type": "default_collate"},
        },
        train_cfg={"by_epoch": True, "max_epochs": 4},
        optim_wrapper={
            "optimizer": {"type": "SGD", "lr": 0.05, "momentum": 0.9},
            "clip_grad": {"max_norm": 1.0},
        },
        param_scheduler=[
            {"type": "OneCycleLR", "eta_max": 0.05, "total_steps": 24, "by_epoch": False},
            {"type": "CosineAnnealingMomentum", "T_max": 4, "eta_min": 0.5, "convert_to_iter_based": True},
        ],
        default_hooks={"checkpoint": {"type": "CheckpointHook", "interval": 1, "max_keep_ckpts": 3}},
        custom_hooks=[EMAHook()],
        randomness={"seed": 3},
        load_from=resume_from and str(resume_from),
        resume=resume_from is not None,
        experiment_name="toy",
        log_level="ERROR",
    )
    runner.train()


def test_resumed_in_a_fresh_process_ends_where_uninterrupted_training_does(tmp_path):
    train(tmp_path / "whole")
    command = [sys.executable, __file__, str(tmp_path / "resumed"), str(tmp_path / "whole" / "epoch_2.pth")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    whole, resumed = (load(str(tmp_path / name / "epoch_4.pth")) for name in ("whole", "resumed"))
    assert {p.name for p in (tmp_path / "resumed").glob("*.pth")} >= {"epoch_3.pth", "epoch_4.pth"}
    for part in ("state_dict", "ema_state_dict", "optimizer", "param_schedulers"):
        assert plain(whole[part]) == plain(resumed[part]), part
    assert plain(whole["meta"]["dataset_meta"]) == plain(Samples.metainfo)
    hubs = [saved["message_hub"] for saved in (whole, resumed)]
    assert [hub["runtime_info"]["keep_ckpt_ids"] for hub in hubs] == [[2, 3, 4]] * 2
    for scalar in ("train/loss", "train/lr", "train/momentum", "train/grad_norm"):
        if scalar in hubs[0]["log_scalars"]:
            histories = [hub["log_scalars"][scalar].data[0] for hub in hubs]
            assert len(histories[0]) == 24 and np.array_equal(*histories), scalar
    assert isinstance(whole["state_dict"], OrderedDict)


if __name__ == "__main__":
    train(Path(sys.argv[1]), Path(sys.argv[2]))


@pytest.mark.skipif(torch.__version__ < "2.11", reason="torch 2.8 does not compare the sizes, 2.11 does")
def test_an_archive_whose_parts_do_not_fit_is_damaged(tmp_path):
    torch.save({"weight": torch.ones(4)}, tmp_path / "whole.pth")
    with zipfile.ZipFile(tmp_path / "whole.pth") as whole, zipfile.ZipFile(tmp_path / "broken.pth", "w") as broken:
        for name in whole.namelist():
            # A byte too few.
            broken.writestr(name, whole.read(name)[: -1 if name.endswith("data/0") else None])
    with pytest.raises(CheckpointError, match=r"broken\.pth \(\d+ bytes\): it cannot be read .*record size"):
        load(str(tmp_path / "broken.pth"))
