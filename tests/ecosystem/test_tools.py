"""The full-size configs as they are, on a few digits: in the frameworks' own tools/train.py, and in ours."""

import csv
import importlib.util
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from mmgn.engine.config import CONFIGS as CONFIG_FILES
from mmgn.engine.config import find_config

CONFIGS = {
    "mmpretrain": "classification/resnet50_fusedgn_8xb32_in1k.py",
    "mmseg": "segmentation/fcn_r50_fusedgn_4xb4-80k_ade20k-512x512.py",
}
UPERNET = "segmentation/upernet_r50_fusedgn_4xb4-80k_ade20k-512x512.py"
BEST = {"mmpretrain": "accuracy/top1", "mmseg": "mIoU"}


def run(script, *args, cwd):
    result = subprocess.run(
        [sys.executable, str(script), *map(str, args)],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    return result.returncode, result.stdout + result.stderr


def as_arguments(options):
    return ["--cfg-options", *(f"{key}={str(value).replace(' ', '')}" for key, value in options.items())]


@pytest.mark.parametrize(("package", "config"), [*CONFIGS.items(), ("mmseg", UPERNET)])
def test_runs_in_the_frameworks_own_tool(package, config, options, tmp_path):
    """Without a word of mmgn but the config's, in an environment without pkg_resources too."""
    pytest.importorskip(package)
    tool = Path(importlib.util.find_spec(package).origin).parent / ".mim/tools/train.py"
    status, output = run(
        tool, find_config(config), "--work-dir", tmp_path, *as_arguments(options[package]), cwd=tmp_path
    )
    assert status == 0, output
    assert f"{BEST[package]}: " in output
    assert "FuseGNHook: " in output
    assert (tmp_path / "run.json").is_file()
    assert len([*tmp_path.glob("*.pth")]) == 1


@pytest.mark.parametrize("package", CONFIGS)
def test_runs_in_ours(package, options, call_tool, tmp_path):
    pytest.importorskip(package)
    arguments = as_arguments(options[package])
    status, output = call_tool(tmp_path, "train.py", CONFIGS[package], "--val-loss", "--work-dir", tmp_path, *arguments)
    assert status == 0, output
    with (tmp_path / "results.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["iter"] == "2"
    assert 0 < float(row["loss"]) < 20 and 0 < float(row["val_loss"]) < 20
    (best,) = tmp_path.glob("best_*.pth")
    assert BEST[package].rpartition("/")[2] in best.name
    kept = ["--work-dir", tmp_path, "--out", tmp_path / "out.pkl", "--show-dir", tmp_path / "shown"]
    status, output = call_tool(tmp_path, "test.py", CONFIGS[package], best, *kept, *arguments)
    assert status == 0, output
    assert f"{BEST[package]}: " in output
    # Of each of the four images.
    assert len(pickle.loads((tmp_path / "out.pkl").read_bytes())) == 4
    assert len([*(tmp_path / "shown").rglob("*.png")]) == 4


@pytest.mark.parametrize("package", CONFIGS)
def test_ours_tells_where_the_data_are_missing(package, call_tool, tmp_path):
    pytest.importorskip(package)
    status, output = call_tool(tmp_path, "train.py", CONFIGS[package], "--data-root", "gone")
    assert status == 1
    assert output.startswith("train.py: image folder 'gone/"), output
    assert "--data-root DIR" in output


def test_configs_are_read_where_nothing_has_imported_mmgn(tmp_path):
    """Their bases are looked up in other packages, for which mmengine 0.10.7 alone wants pkg_resources."""
    for package in CONFIGS:
        pytest.importorskip(package)
    script = tmp_path / "read.py"
    script.write_text(
        "import sys\n"
        "from mmengine.config import Config\n"
        "assert 'mmgn' not in sys.modules\n"
        "print(*(Config.fromfile(path).default_scope for path in sys.argv[1:]))\n"
    )
    folders = {"classification": "mmpretrain", "segmentation": "mmseg"}
    paths = {path: scope for name, scope in folders.items() for path in sorted((CONFIG_FILES / name).glob("*.py"))}
    status, output = run(script, *paths, cwd=tmp_path)
    assert status == 0, output
    assert output.split() == [*paths.values()]
