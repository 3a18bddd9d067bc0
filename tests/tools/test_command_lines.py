"""tools/train.py and tools/test.py take mmdet's command lines, with the meaning that they have there."""

import importlib.util
import sys
from pathlib import Path

import pytest

# Before mmdet, which needs the ops that mmgn provides.
import mmgn  # noqa: F401

mmdet = pytest.importorskip("mmdet")

OURS, MMDETS = Path(__file__).parents[2] / "tools", Path(mmdet.__file__).parent / ".mim/tools"
# All that mmdet's tools have, none at its default.
BOTH = ["--work-dir", "w", "--launcher", "slurm", "--local_rank", "1", "--cfg-options", "a.b=[1,2]", "c=d", "e=(1,'f')"]
TRAIN = ["c.py", *BOTH, "--amp", "--auto-scale-lr", "--resume", "e.pth"]
TEST = ["c.py", "e.pth", *BOTH, "--out", "o.pkl", "--show", "--show-dir", "s", "--wait-time", "0.5", "--tta"]


def parsed(path, argv, monkeypatch):
    spec = importlib.util.spec_from_file_location("tool", path)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setattr(sys, "argv", [path.name, *argv])
    return vars(tool.parse_args())


@pytest.mark.parametrize(
    ("name", "argv"),
    [
        ("train.py", TRAIN),
        ("train.py", ["c.py"]),
        ("train.py", ["c.py", "--resume"]),
        *(("train.py", ["c.py", "--launcher", launcher, "--local-rank=3"]) for launcher in ("none", "pytorch", "mpi")),
        ("test.py", TEST),
        ("test.py", ["c.py", "e.pth"]),
    ],
)
def test_mmdets_command_lines_mean_what_they_mean_there(name, argv, monkeypatch):
    theirs = parsed(MMDETS / name, argv, monkeypatch)
    ours = parsed(OURS / name, argv, monkeypatch)
    assert {key: ours[key] for key in theirs} == theirs


@pytest.mark.parametrize(("name", "flags", "bare"), [("train.py", TRAIN, ["c.py"]), ("test.py", TEST, TEST[:2])])
def test_these_are_all_of_mmdets_flags(name, flags, bare, monkeypatch):
    given, defaults = (parsed(MMDETS / name, argv, monkeypatch) for argv in (flags, bare))
    same = {key for key in defaults if given[key] == defaults[key]}
    assert same == {"config", *(["checkpoint"] if name == "test.py" else [])}
