import json
from importlib import metadata

import pytest
import torch

pytest.importorskip("mmdet")

from mmgn.compat import environment


@pytest.fixture(scope="module")
def env():
    return environment.collect()


def test_versions_are_those_of_the_installed_distributions(env):
    assert env["torch"] == torch.__version__
    distributions = metadata.packages_distributions()
    for name in ("mmengine", "mmcv", "mmdet", *{"mmpretrain", "mmseg"}.intersection(distributions)):
        owner = distributions[name][0]
        origin = "fork" if owner.startswith("onedl") else "upstream"
        assert env["packages"][name] == f"{owner} {metadata.version(owner)} ({origin})"


def test_is_plain_data(env):
    assert json.loads(json.dumps(env)) == env


def test_text_holds_every_fact(env):
    text = environment.format_text(env)
    for fact in (env["python"], env["system"]["cpu"], env["packages"]["mmdet"], env["patches"]["checkpoint"]):
        assert fact in text
    assert all(op in text for op in env["mmcv_ops"])


def test_text_of_what_is_not_there():
    facts = {"gpu": {"driver": None, "devices": []}, "triton": {"package": False}, "clashes": []}
    assert environment.format_text(facts).split() == (
        ["gpu", "driver", "absent", "devices", "none", "triton", "package", "absent", "clashes", "none"]
    )
    assert environment.format_text({"system": {"cores": 1}}).split() == ["system", "cores", "1"]


def test_patches_are_active_in_this_process(env):
    assert env["patches"]["checkpoint"].startswith("active")


def test_gpus_are_those_torch_sees(env):
    assert len(env["gpu"]["devices"]) == torch.cuda.device_count()


NO_GPU = {"driver": None, "devices": []}
# What the packages themselves raise.
FAILURES = {
    "mmdet": (
        "MMCV==2.2.0 is used but incompatible. Please install mmcv>=2.0.0rc4, <2.2.0",
        "mmcv-lite>=2.0.1,<2.2",
    ),
    "cv2": (
        "libGL.so.1: cannot open shared object file: No such file or directory",
        "opencv-python-headless",
    ),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_package_that_does_not_import_is_a_clash_with_a_way_out(name, tmp_path, monkeypatch):
    message, way_out = FAILURES[name]
    (tmp_path / f"{name}.py").write_text(f"raise ImportError({message!r})\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(environment.sys.modules, name, raising=False)
    clashes = environment._clashes(NO_GPU, {})
    assert any(message in clash and way_out in clash for clash in clashes)


def test_a_gpu_without_a_compiler_is_a_clash():
    gpu = {"driver": "550.54", "devices": ["NVIDIA H100, capability 9.0, 80 GiB"]}
    triton = {"package": True, "c_compiler": None, "python_headers": "/usr/include/python3.11"}
    assert any("lack of c_compiler: install" in clash for clash in environment._clashes(gpu, triton))
    assert not any("Triton" in clash for clash in environment._clashes(NO_GPU, triton))


def test_a_driver_without_a_gpu_is_a_clash():
    clashes = environment._clashes({"driver": "550.54", "devices": []}, {})
    assert any("sees no GPU" in clash and "550.54" in clash for clash in clashes)
    assert not any("sees no GPU" in clash for clash in environment._clashes(NO_GPU, {}))
