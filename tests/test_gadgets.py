"""Pickles that run code, through every door by which a file comes in; tests/corpora/gadgets.py has them."""

import functools
import json
import os
import shutil
import ssl
import subprocess
import sys
import threading
import warnings
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

pytest.importorskip("mmdet")

import doors
import gadgets
import numpy as np
import torch

from mmgn.compat.checkpoint import CheckpointError
from mmgn.engine.data_code import check_runs_nothing


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    """The names of those that run where they are read without care."""
    folder = tmp_path_factory.mktemp("live")
    command = [sys.executable, gadgets.__file__, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("name", gadgets.NAMES)
def test_the_gadget_would_run(name, live):
    """Or the other tests show nothing."""
    assert name in live


@pytest.mark.parametrize("name", gadgets.NAMES)
def test_no_door_runs_it(name, tmp_path, monkeypatch):
    # What mmengine's users set to have their checkpoints loaded at all.
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    marker = tmp_path / "marker"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for protocol in (2, 4, 5):
            raw = gadgets.raw(name, marker, protocol)
            for door, (read, formats, error) in doors.DOORS.items():
                for kind in formats:
                    path = tmp_path / ("x.pkl" if kind == "pickle" else "x.pth")
                    path.write_bytes(gadgets.FORMATS[kind](raw))
                    with pytest.raises(error) as caught:
                        read(path)
                    message = str(caught.value)
                    assert "\n" not in message and len(message) < 700, (door, kind, message)
                    assert str(path) in message or door == "safe_pickle", (door, kind, message)
    assert not marker.exists()


@pytest.mark.filterwarnings("ignore")
def test_torchscript_runs_nothing(tmp_path):
    marker, path = tmp_path / "marker", tmp_path / "x.pth"
    gadgets.torchscript(path, marker)
    torch.load(path, weights_only=False)
    assert marker.exists()
    marker.unlink()
    for read in (doors.load, doors.read_checkpoint):
        with pytest.raises(CheckpointError, match="TorchScript"):
            read(path)
    assert not marker.exists()


def test_package_runs_nothing(tmp_path):
    marker, path = tmp_path / "marker", tmp_path / "x.pth"
    with torch.package.PackageExporter(path) as exporter:
        exporter.save_source_string("own", f"open({str(marker)!r}, 'w').close()\nclass Model: pass")
        exporter.save_pickle("model", "model.pkl", 1)
    torch.package.PackageImporter(path).import_module("own")
    assert marker.exists()
    marker.unlink()
    for read in (doors.load, doors.read_checkpoint):
        with pytest.raises(CheckpointError):
            read(path)
    assert not marker.exists()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1 and its key, by the openssl that is installed."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes a certificate, is not installed")
    folder = tmp_path_factory.mktemp("certificate")
    paths = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-out", str(paths[0]), "-keyout", str(paths[1])]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return paths


@pytest.fixture(params=["http", "https"])
def url(request, tmp_path, monkeypatch):
    """The address of ``tmp_path / "www"`` on a server of this machine; https with a certificate of its own."""
    (tmp_path / "www").mkdir()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(tmp_path / "www")))
    if request.param == "https":
        certificate, key = request.getfixturevalue("certificate")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"{request.param}://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_download_runs_nothing(url, tmp_path):
    marker = tmp_path / "marker"
    for name in gadgets.NAMES:
        for kind, wrap in gadgets.FORMATS.items():
            # Another name each time, as what has come is kept.
            file = f"{gadgets.NAMES.index(name)}-{kind}.pth"
            (tmp_path / "www" / file).write_bytes(wrap(gadgets.raw(name, marker)))
            with pytest.raises(CheckpointError, match=file):
                doors.load(f"{url}/{file}")
    assert not marker.exists()


@pytest.mark.parametrize("url", ["https"], indirect=True)
def test_stranger_with_a_certificate_of_his_own_is_not_asked(url, tmp_path, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    torch.save({"state_dict": {}}, tmp_path / "www/x.pth")
    with pytest.raises(OSError, match="certificate verify failed"):
        doors.load(f"{url}/x.pth")


def test_cache_of_annotations_runs_nothing(tmp_path):
    """Whoever may write the folder of caches gets no further than another parse."""
    from mmgn.datasets.shared import Items, read_items, write_items

    path, stamp, marker = tmp_path / "x.items", {"format": 1}, tmp_path / "marker"
    write_items(path, stamp, Items(np.frombuffer(b"{}", np.uint8), np.array([2]), [1]))
    assert read_items(path, stamp) is not None
    header = path.read_bytes().partition(b"\n")[0] + b"\n"
    for name in gadgets.NAMES:
        raw = gadgets.raw(name, marker)
        array = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(118)
        for body in (raw, array + raw):
            path.write_bytes(header + body)
            assert read_items(path, stamp) is None
    assert not marker.exists()


@pytest.mark.parametrize("name", ["x.pkl", "x.pickle", "x.yaml", "x.yml", "x.npy"])
def test_data_that_would_run_is_refused_before(name, tmp_path):
    """mmdet's own readers of these run it."""
    import mmengine

    marker, path = tmp_path / "marker", tmp_path / name
    if name.endswith("npy"):
        np.save(path, np.array([gadgets.Call(os.system, f"touch {marker}")], object), allow_pickle=True)
        np.load(path, allow_pickle=True)
    else:
        in_yaml = f"!!python/object/apply:os.system ['touch {marker}']"
        path.write_bytes(in_yaml.encode() if ".y" in name else gadgets.raw("os.system", marker))
        mmengine.load(str(path))
    assert marker.exists()
    marker.unlink()
    for key in ("ann_file", "proposal_file", "extra_ann_file"):
        with pytest.raises(ValueError, match=rf"{name} \(val_dataloader\.dataset\.{key}\) is not read"):
            check_runs_nothing({"data_root": str(tmp_path), key: name}, "val_dataloader.dataset")
    with pytest.raises(ValueError, match="bring it to this machine"):
        check_runs_nothing({"ann_file": f"http://127.0.0.1/{name}"}, "val_dataloader.dataset")
    assert not marker.exists()


# Calls of numpy's own that leave an array of references to whatever the bytes say.
FORGED = [
    b"cnumpy\nndarray\nK\x01\x85X\x01\x00\x00\x00OC\x08AAAAAAAA\x87R.",
    b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x01\x85X\x01\x00\x00\x00OtR.",
]


@pytest.mark.parametrize("forged", FORGED)
def test_data_files_that_forge_arrays_are_told(forged, tmp_path):
    (tmp_path / "x.pkl").write_bytes(b"\x80\x03" + forged)
    with pytest.raises(ValueError, match=r"x\.pkl \(train_dataloader\.dataset\.proposal_file\) is not read"):
        check_runs_nothing({"data_root": str(tmp_path), "proposal_file": "x.pkl"}, "train_dataloader.dataset")


def test_data_that_only_hold_data_pass(tmp_path):
    import mmengine
    from mmengine.structures import InstanceData

    boxes = np.zeros((3, 4), np.float32)
    content = {"val/1.jpg": InstanceData(bboxes=boxes, scores=boxes[:, 0]), "val/2.jpg": {"bboxes": boxes}}
    content |= {"names": np.array(["1.jpg", "22.jpg"]), "id": np.uint64(3), tmp_path: np.zeros(2, ">u2")}
    mmengine.dump(content, tmp_path / "proposals.pkl")
    mmengine.dump({"metainfo": {"classes": ["a"]}, "data_list": [{"img_path": "a.jpg"}]}, tmp_path / "x.yaml")
    np.save(tmp_path / "x.npy", boxes)
    for name in ("proposals.pkl", "x.yaml", "x.npy", "none.pkl"):
        for backend in (None, {"backend": "local"}, {"backend": "LocalBackend"}):
            entry = {"data_root": str(tmp_path), "proposal_file": name, "backend_args": backend}
            check_runs_nothing(entry, "train_dataloader.dataset")
    with pytest.raises(ValueError, match="bring it to this machine"):
        check_runs_nothing(entry | {"backend_args": {"backend": "petrel"}}, "train_dataloader.dataset")


def test_what_a_run_writes_is_not_read(digits, tmp_path):
    """Or mmdet's DumpDetResults, whose dumps hold tensors, would let tools/test.py run once only."""
    from mmgn.engine.config import load_config
    from mmgn.engine.data import check_data

    (tmp_path / "x.pkl").write_bytes(gadgets.raw("os.system", tmp_path / "marker"))
    cfg = load_config(doors.CONFIG)
    cfg.test_dataloader.dataset.update(data_root=str(digits / "data/digits"), out_file=str(tmp_path / "x.pkl"))
    ann_file = str(digits / "data/digits/annotations/instances_val.json")
    cfg.test_evaluator = [dict(type="CocoMetric", ann_file=ann_file)]
    for kind, key in (("DumpDetResults", "out_file_path"), ("DumpProposals", "proposals_file")):
        cfg.test_evaluator.append({"type": kind, key: str(tmp_path / "x.pkl")})
    check_data(cfg, "test")
    cfg.test_evaluator[0]["ann_file"] = str(tmp_path / "x.pkl")
    with pytest.raises(ValueError, match=r"test_evaluator\.0\.ann_file\) is not read.*save it again as plain lists"):
        check_data(cfg, "test")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    from mmgn.datasets.digits import make_digits

    folder = tmp_path_factory.mktemp("digits")
    make_digits(folder / "data/digits", num_train=2, num_val=1)
    return folder


@pytest.mark.parametrize("door", doors.TOOLS)
def test_no_tool_runs_it(door, digits, tmp_path, call_tool, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    marker = tmp_path / "marker"
    tool, *args = doors.command(door, gadgets.raw("os.system", marker), tmp_path)
    status, said = call_tool(digits, tool, *args)
    assert status not in (0, 2), said
    assert f"{tool}: " in said.splitlines()[-1] and "/x.p" in said.splitlines()[-1], said
    assert not marker.exists()


@pytest.mark.parametrize("layout", ["detectron", "detectron2", "torchvision", "timm", "mmdet"])
def test_no_converter_runs_it(layout, tmp_path, call_tool):
    marker = tmp_path / "marker"
    for name, wrap in (("x.pkl", bytes), ("x.pth", gadgets.as_zip), ("y.pth", gadgets.as_legacy)):
        (tmp_path / name).write_bytes(wrap(gadgets.raw("os.system", marker)))
        for args in (("--from", layout, tmp_path / "converted.pth"), ("--to", layout, tmp_path / "converted.pkl")):
            status, said = call_tool(tmp_path, "convert_checkpoint.py", tmp_path / name, *args)
            assert status == 1 and "convert_checkpoint.py: " in said.splitlines()[-1], said
    assert not marker.exists() and not [*tmp_path.glob("converted*")]


@pytest.mark.parametrize("tool", ["swap_norm.py", "inspect_norm.py"])
def test_tools_for_configs_open_no_weights(tool, tmp_path, call_tool):
    """Not even to refuse them."""
    from mmgn.engine.config import CONFIGS

    marker, weights = tmp_path / "marker", tmp_path / "x.pth"
    weights.write_bytes(gadgets.as_zip(gadgets.raw("os.system", marker)))
    (tmp_path / "config.py").write_text(
        f"_base_ = {str(CONFIGS / doors.CONFIG)!r}\nload_from = {str(weights)!r}\n"
        f"model = dict(backbone=dict(init_cfg=dict(_delete_=True, type='Pretrained', checkpoint=load_from)))\n"
    )
    args = ["--to", "GN", "--out", "swapped.py"] if tool == "swap_norm.py" else []
    status, said = call_tool(tmp_path, tool, "config.py", *args)
    assert status == 0, said
    assert not marker.exists()


def test_rubbish_for_safetensors_is_told(tmp_path):
    pytest.importorskip("safetensors")
    path = tmp_path / "x.safetensors"
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    for change in (
        *({"data_offsets": [0, 2**63]}, {"data_offsets": [8, 0]}, {"data_offsets": [-8, 0]}, {"data_offsets": "ab"}),
        *({"shape": [2**40]}, {"shape": [2**62, 8]}, {"shape": [-2]}, {"shape": {}}),
        *({"dtype": "O"}, {"dtype": None}, {"dtype": "F64"}),
    ):
        header = json.dumps({"w": entry | change}).encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
        with pytest.raises(CheckpointError, match=r"x\.safetensors"):
            doors.read_checkpoint(path)
    sound = json.dumps({"w": entry}).encode()
    for header in (b"{", b"{" * 100_000, b'{"w": 1}', sound[:-1], sound.replace(b"w", b"\xff"), b"\x00" * 8):
        for length in (len(header), 2**40, 2**64 - 1, 0):
            path.write_bytes(length.to_bytes(8, "little") + header + bytes(8))
            with pytest.raises(CheckpointError, match=r"x\.safetensors"):
                doors.read_checkpoint(path)
    path.write_bytes(len(sound).to_bytes(8, "little") + sound + bytes(8))
    assert doors.read_checkpoint(path)
