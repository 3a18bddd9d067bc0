"""tools/warm_up.py, for a GPU that is not there."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

DIGITS = "digits/mask-rcnn_r18-mini_fpn_fusedgn-all_digits.py"
# Of each part of a detector one, so that there are few kernels.
SMALL = f"""
_base_ = "mmgn::{DIGITS}"
model = dict(
    backbone=dict(num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(0, 1)),
    neck=dict(in_channels=[16, 32], num_outs=5, norm_cfg=None),
    roi_head=dict(mask_head=dict(norm_cfg=None)),
)
"""
SIZE = [64, 96]


@pytest.fixture(autouse=True)
def compiling(tmp_path, monkeypatch):
    """Have Triton compile, into a cache of its own."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)


@pytest.fixture
def small(tmp_path):
    (tmp_path / "small.py").write_text(SMALL)
    return "small.py"


def counts(output):
    """Return the kernels, those compiled and those found, as the tool printed them."""
    return tuple(map(int, re.search(r"kernels: (\d+), (\d+) compiled, (\d+) found", output).groups()))


@pytest.mark.parametrize(
    "amp, channels_last", [(None, False), ("bfloat16", True)], ids=["float32", "amp-channels_last"]
)
def test_training_then_compiles_nothing(tmp_path, run_tool, small, amp, channels_last):
    flags = [*(["--amp", amp] if amp else []), *(["--channels-last"] if channels_last else [])]
    status, output = run_tool(tmp_path, "warm_up.py", small, "--arch", 90, "--size", *SIZE, *flags)
    assert status == 0, output
    kernels, compiled, found = counts(output)
    assert kernels == compiled > 5
    assert not found
    assert "for sm_90" in output
    assert f"cache: {tmp_path / 'cache'}" in output

    trained = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("train_without_gpu.py")),
         json.dumps([small, SIZE, amp, channels_last])],
        cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    compiled, found, unheard_of = map(int, trained.stdout.split())
    assert compiled == 0
    assert 5 < found <= kernels
    assert unheard_of == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_asks_for_one(tmp_path, run_tool):
    status, output = run_tool(tmp_path, "warm_up.py", DIGITS)
    assert status == 1
    assert "sees no GPU here" in output
    assert "--arch 80 for an A100" in output


@pytest.mark.parametrize(
    "args, message",
    [
        ([DIGITS, "--arch", 42], "invalid choice: 42"),
        (["digits/mask-rcnn.py"], "config 'digits/mask-rcnn.py' does not exist"),
        (["_base_/fusedgn.py"], "has no model"),
        ([DIGITS, "--cfg-options", "model.neck.type=FPNN"], "cannot be built"),
        (
            [DIGITS, "--arch", 90, "--cfg-options", "train_dataloader.dataset.pipeline.2.scale=None"],
            "give them with --size H W",
        ),
    ],
    ids=["arch", "config", "no model", "type", "pipeline"],
)
def test_bad_input(tmp_path, run_tool, args, message):
    status, output = run_tool(tmp_path, "warm_up.py", *args)
    assert status in (1, 2)
    assert message in output
    assert "Traceback" not in output


def test_where_kernels_are_interpreted(tmp_path, run_tool, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    status, output = run_tool(tmp_path, "warm_up.py", DIGITS, "--arch", 90)
    assert status == 1
    assert "unset it" in output
    assert "Traceback" not in output


def test_nothing_to_compile(tmp_path, run_tool):
    (tmp_path / "plain.py").write_text('_base_ = "mmgn::mask_rcnn/mask-rcnn_r50_fpn_bn-frozen_2x_coco.py"\n')
    status, output = run_tool(tmp_path, "warm_up.py", "plain.py")
    assert (status, output.splitlines()[-1]) == (
        0,
        "warm_up.py: the model of plain.py has no FusedGN: nothing to compile",
    )
