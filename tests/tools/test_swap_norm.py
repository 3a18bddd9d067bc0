"""tools/swap_norm.py, as a person calls it."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"

RETINA = "mmdet::retinanet/retinanet_r18_fpn_1x_coco.py"


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Run the tool's main() in this process, which has mmdet imported; returns the exit status and all it printed."""
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location("swap_norm", TOOLS / "swap_norm.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["swap_norm.py", *map(str, args)])
        try:
            tool.main()
        except SystemExit as error:
            said = error.code if isinstance(error.code, str) else ""
            printed = capsys.readouterr()
            return (1 if said else error.code), printed.out + printed.err + said
        return 0, capsys.readouterr().out

    return run


def test_a_config_is_swapped_and_told_about(tmp_path, run_tool):
    status, output = run_tool(tmp_path, "swap_norm.py", RETINA, "--out", "swapped.py")
    assert status == 0, output
    text = (tmp_path / "swapped.py").read_text()
    assert text.startswith(f"_base_ = '{RETINA}'")
    assert text.strip() in output
    assert "+model.backbone.norm_cfg.type = 'FusedGN'" in output
    assert re.search(r"20 +backbone +BN +FusedGN\(32\) +64-512 +yes +no", output)
    assert "no group norm weights are published for it" in output


def test_the_end_of_other_norms_decay_is_said(tmp_path, call):
    status, output = call("mmdet::detr/detr_r18_8xb2-500e_coco.py", "--out", "swapped.py")
    assert status == 0
    assert re.search(r"20 +backbone +BN +FusedGN\(32\) +64-512 +yes +no", output)
    assert (
        "custom_keys for the new norms, as norm_decay_mult is out of force there: .downsample.1., .gn1.bias," in output
    )
    assert "norm_decay_mult=0 also ends the decay of 31 LN (encoder.layers.0.norms.0 and 30 more)" in output


def test_options(tmp_path, call):
    flags = [
        "--to",
        "GN",
        "--num-groups",
        16,
        "--where",
        "backbone, neck",
        "--scratch",
        "--out",
        "swapped.py",
        "--force",
    ]
    (tmp_path / "swapped.py").write_text("old")
    status, output = call(RETINA, *flags)
    assert status == 0
    text = (tmp_path / "swapped.py").read_text()
    assert "norm_cfg = dict(type='GN', num_groups=16)" in text
    assert "init_cfg=None" in text
    assert "bbox_head" not in text
    assert "73 epochs" in output


@pytest.mark.parametrize(
    "args, message",
    [
        ([RETINA], "--out FILE is needed"),
        ([], "give a CONFIG, or --all"),
        ([RETINA, "--all"], "give a CONFIG, or --all"),
        ([RETINA, "--num-groups", 8, "--channels-per-group", 8, "--out", "new.py"], "not allowed with argument"),
        ([RETINA, "--to", "Foo", "--out", "new.py"], "to must be one of FusedGN, GN, got 'Foo'"),
        ([RETINA, "--num-groups", 48, "--out", "new.py"], "num_groups=48 does not divide the channels"),
        (["mmdet::ssd/ssd300_coco.py", "--out", "new.py"], "has no norm, so there is none to swap"),
        (["mmdet::_base_/schedules/schedule_1x.py", "--out", "new.py"], "has no model"),
        (["no_such_config.py", "--out", "new.py"], "'no_such_config.py' does not exist"),
        ([RETINA, "--out", "new.txt"], "must end in .py"),
        (["unknown.py", "--out", "new.py"], "swap_norm.py: model.neck.norm_cfg: unknown norm 'NoSuchNorm'; known are "),
        ([RETINA, "--out", "there.py"], "--out there.py exists; --force writes over it"),
        ([RETINA, "--out", "no_such_folder/new.py"], "the folder of --out no_such_folder/new.py does not exist"),
        (["--all", "--where", "neck"], "--all swaps all parts"),
        (["--all", "--match", "nothing/*.py"], "no config 'nothing/*.py'"),
    ],
)
def test_bad_input_writes_nothing(tmp_path, call, args, message):
    (tmp_path / "there.py").write_text("mine")
    unknown = f"_base_ = '{RETINA}'\nmodel = dict(neck=dict(norm_cfg=dict(type='NoSuchNorm')))"
    (tmp_path / "unknown.py").write_text(unknown)
    status, output = call(*args)
    assert status
    assert message in output
    assert {path.name for path in tmp_path.iterdir()} == {"there.py", "unknown.py"}
    assert (tmp_path / "there.py").read_text() == "mine"


def test_all_counts_and_fails_for_what_is_worse(call):
    status, output = call("--all", "--match", "ssd/ssd300*.py")
    assert status == 0
    assert "ssd/ssd300_coco.py: no batch or group norm, " in output
    assert "1  in all" in output
    status, output = call("--all", "--match", "yolox/yolox_tiny*.py", "--num-groups", 32)
    assert status == 1
    assert "1  worse than before the swap" in output
    assert "num_groups=32 does not divide" in output
