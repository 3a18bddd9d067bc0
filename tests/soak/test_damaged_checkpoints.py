"""Checkpoints that are cut off, flipped or empty, through every tool that opens one."""

import pytest

pytest.importorskip("mmdet")
import torch

from mmgn.datasets.digits import make_digits
from mmgn.engine.config import load_config
from mmgn.engine.model import build_model

pytestmark = [pytest.mark.soak, pytest.mark.timeout(600)]
CONFIG = "digits/mask-rcnn_r18-mini_fpn_fusedgn-all_digits.py"
TRAINING = ["train.py", CONFIG, "--skip-preflight", "--work-dir", "work"]
HERE = ["train_dataloader.num_workers=0", "train_dataloader.persistent_workers=False"]
DOORS = {
    "test": ["test.py", CONFIG, "damaged.pth", "--work-dir", "work"],
    "predict": ["predict.py", CONFIG, "damaged.pth", "data/digits/val", "--out", "out"],
    "convert": ["convert_checkpoint.py", "damaged.pth", "out.safetensors"],
    "resume": [*TRAINING, "--resume", "damaged.pth", "--cfg-options", *HERE],
    "load_from": [*TRAINING, "--cfg-options", "load_from=damaged.pth", *HERE],
}
DAMAGES = {
    "cut off": lambda whole: whole[: len(whole) // 2],
    "flipped": lambda whole: (
        whole[: len(whole) // 2] + bytes([whole[len(whole) // 2] ^ 1]) + whole[len(whole) // 2 + 1 :]
    ),
    "empty": lambda whole: b"",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged")
    make_digits(folder / "data/digits", num_train=2, num_val=1)
    model = build_model(load_config(CONFIG))
    torch.save({"meta": {"epoch": 1, "iter": 1}, "state_dict": model.state_dict()}, folder / "whole.pth")
    return folder


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("door", DOORS)
def test_a_damaged_checkpoint_is_told_in_a_line_and_left_alone(folder, call_tool, door, damage):
    path = folder / "damaged.pth"
    content = DAMAGES[damage]((folder / "whole.pth").read_bytes())
    path.write_bytes(content)
    tool, *args = DOORS[door]
    status, said = call_tool(folder, tool, *args)
    lines = [line for line in said.splitlines() if line.startswith(f"{tool}: ")]
    assert status == 1 and len(lines) == 1 and said.rstrip().endswith(lines[0]) and "Traceback" not in said, said
    assert f"damaged.pth ({len(content)} bytes)" in lines[0], lines
    assert path.read_bytes() == content
    assert not (folder / "out.safetensors").exists()
