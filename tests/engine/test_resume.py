"""The checkpoint that --resume without a path goes on from."""

import errno
import fcntl
import os
import subprocess
import sys

import pytest

pytest.importorskip("mmengine")
import torch
from mmengine.config import Config

from mmgn.compat.checkpoint import CheckpointError
from mmgn.engine.files import remove_leftovers, write_whole
from mmgn.engine.resume import choose


def save(folder, name, age):
    torch.save({"state_dict": {"w": torch.ones(3000)}, "meta": {}}, folder / name)
    os.utime(folder / name, (1e9 - age, 1e9 - age))
    return folder / name


@pytest.fixture
def cfg(tmp_path):
    for number in (1, 2, 3):
        save(tmp_path, f"epoch_{number}.pth", 10 - number)
    save(tmp_path, "best_coco_segm_mAP_epoch_3.pth", 0)
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "epoch_3.pth"))
    return Config({"work_dir": str(tmp_path), "load_from": "start.pth"})


def damage(path, how):
    content = bytearray(path.read_bytes())
    if how == "flipped":
        content[len(content) // 2] ^= 16
    path.write_bytes({"empty": b"", "truncated": content[: len(content) // 2], "flipped": content}[how])


def test_the_last_one_is_taken_silently(cfg, tmp_path):
    assert choose(cfg) == ""
    assert (cfg.resume, cfg.load_from) == (True, None)
    assert (tmp_path / "last_checkpoint").read_text() == str(tmp_path / "epoch_3.pth")


@pytest.mark.parametrize("how", ["empty", "truncated", "flipped"])
def test_an_older_one_is_taken_for_one_that_is_damaged_and_it_is_said(cfg, tmp_path, how):
    damage(tmp_path / "epoch_3.pth", how)
    said = choose(cfg)
    wanted = tmp_path / "epoch_2.pth"
    assert said.startswith(f"--resume goes on from {wanted}, the newest whole checkpoint ({tmp_path}/epoch_3.pth: ")
    assert (cfg.resume, cfg.load_from) == (True, None)
    # What mmengine goes on from.
    assert (tmp_path / "last_checkpoint").read_text() == str(wanted)
    assert choose(cfg) == ""


def test_the_newest_is_taken_where_the_last_is_gone(cfg, tmp_path):
    save(tmp_path, "interrupted.pth", 7.5)
    (tmp_path / "epoch_3.pth").unlink()
    damage(tmp_path / "epoch_2.pth", "flipped")
    said = choose(cfg)
    assert f"goes on from {tmp_path}/interrupted.pth, the newest whole checkpoint ({tmp_path}/epoch_3.pth: " in said
    (tmp_path / "last_checkpoint").unlink()
    assert f"there is no {tmp_path}/last_checkpoint" in choose(cfg)


def test_there_is_none(cfg, tmp_path):
    for number in (1, 2, 3):
        damage(tmp_path / f"epoch_{number}.pth", "truncated")
    with pytest.raises(CheckpointError, match="finds no whole checkpoint in") as caught:
        choose(cfg)
    assert str(caught.value).count("truncated") == 3
    (tmp_path / "new").mkdir()
    begun = Config({"work_dir": str(tmp_path / "new"), "load_from": "start.pth"})
    assert choose(begun) == ""
    assert (begun.resume, begun.load_from) == (False, "start.pth")


WRITES = """
import os, sys
from mmgn.engine import files
# Waits where the file is written and not in its place.
files.os.fsync = lambda number: (print("writing", flush=True), sys.stdin.read())
files.write_whole(sys.argv[1], b"new")
"""


def test_what_a_killed_process_was_writing_is_removed_and_what_a_live_one_writes_is_not(tmp_path):
    command = [sys.executable, "-c", WRITES, tmp_path / "file"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "writing\n"
        assert remove_leftovers(tmp_path) == []
        write_whole(tmp_path / "other", b"")
        process.kill()
    parts = list(tmp_path.glob(".*.part"))
    assert len(parts) == 1
    assert remove_leftovers(tmp_path) == parts
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_leftovers_are_removed_where_only_what_is_open_for_writing_is_locked(tmp_path, monkeypatch):
    lock = fcntl.flock

    def flock(file, how):
        # As NFS does.
        if not file.writable():
            raise OSError(errno.EBADF, "Bad file descriptor")
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    part = tmp_path / ".epoch_1.pth.1.part"
    part.write_bytes(b"begun")
    assert remove_leftovers(tmp_path) == [part]


def test_a_record_that_cannot_be_written_is_told_to_all_ranks(cfg, tmp_path, monkeypatch):
    damage(tmp_path / "epoch_3.pth", "truncated")
    told = []
    monkeypatch.setattr("mmgn.engine.resume.broadcast_object_list", told.append)
    # In the place of what is written first, whoever writes it.
    (tmp_path / f".last_checkpoint.{os.getpid()}.part").mkdir()
    with pytest.raises(CheckpointError, match=r"--resume cannot choose a checkpoint: .*last_checkpoint .* be written"):
        choose(cfg)
    assert "cannot be written" in told[0][2]
