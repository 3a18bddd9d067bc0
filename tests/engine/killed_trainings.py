"""Trainings by tools/train.py that are killed by SIGKILL and resumed until they are over.

``python killed_trainings.py FOLDER PLAN``: PLAN is JSON, ``{"ranks": 1, "trainings": [[moment, ...], ...]}``. A moment
is ``{"part": 0.5, "rank": 0}``, a share of the time that a whole training takes and the rank to be killed then, with
``"since": "epoch_1.pth"`` from when that file is there, or
``{"write": 3, "delay": 0.001}``, the third of the checkpoints that the run begins to write, and seconds after that; a
delay of null is when the file is there, and not in its place yet. A training is killed at each of its moments in a run
of its own, which goes on by ``--resume``, and ends in one more. Prints a line of JSON of the training that is never
killed, and one for each other.

Every process is forked from this one, which has imported all: to start takes no time.
"""

import csv
import json
import os
import re
import runpy
import signal
import socket
import sys
import threading
import time
import traceback
from pathlib import Path

import numpy as np
import torch

import mmgn
from mmgn.datasets.digits import make_digits
from mmgn.engine.config import find_config

FOLDER = Path(sys.argv[1])
TRAIN = Path(mmgn.__file__).parents[1] / "tools/train.py"
CONFIG = """
_base_ = '{base}'
# An epoch of six iterations on one process.
train_dataloader = dict(
    batch_size=2, num_workers=2, persistent_workers=True,
    dataset=dict(pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
        dict(type='RandomResize', scale=[(64, 64), (80, 80)], keep_ratio=True),
        dict(type='RandomFlip', prob=0.5),
        dict(type='PhotoMetricDistortion'),
        dict(type='PackDetInputs')]))
val_dataloader = dict(num_workers=0, persistent_workers=False, batch_size=2)
train_cfg = dict(max_epochs=3)
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=1e-3, weight_decay=0.05))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=10),
    dict(type='MultiStepLR', by_epoch=True, milestones=[2], gamma=0.1)]
custom_hooks = [*_base_.custom_hooks, dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=0.01, priority=49)]
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))
randomness = dict(seed=5)
"""


def die_at(number, delay):
    """Have this process kill itself while it writes a checkpoint, the so manieth of the run."""
    count = 0

    def watch(event, args):
        nonlocal count
        if event not in ("open", "os.rename") or not re.search(r"\.pth\.\d+\.part$", str(args[0])):
            return
        count += event == "open"
        if count == number and event == "open" and delay is not None:
            threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
        if count == number and event == "os.rename":
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def fork_rank(work_dir, rank, ranks, port, write):
    """Start a rank of a run, which kills itself at a write, if there is one; returns its process id."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        log = os.open(work_dir.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.argv = [str(TRAIN), "config.py", "--work-dir", str(work_dir), "--resume", "--skip-preflight"]
        if ranks > 1:
            sys.argv += ["--launcher", "pytorch"]
            where = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=ranks, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
            os.environ.update({name: str(value) for name, value in where.items()})
        if write and rank == 0:
            die_at(*write)
        runpy.run_path(str(TRAIN), run_name="__main__")
        status = 0
    except SystemExit as error:
        print(error.code, file=sys.stderr)
        status = error.code if isinstance(error.code, int) else bool(error.code)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def run(work_dir, ranks, after=None, victim=0, since=None, write=None):
    """Train to the end, or until a rank is killed, and end the others then, as torchrun does.

    Args:
        work_dir: of the training.
        ranks: how many.
        after: seconds after which the rank ``victim`` is killed; None for never.
        victim: a rank.
        since: a file in the work dir from which on seconds are counted; None for the beginning.
        write: at which rank 0 kills itself, as of :func:`die_at`.

    Returns:
        The signals that ended the ranks, and the exit statuses of those that none has ended.
    """
    with socket.socket() as server:
        server.bind(("", 0))
        port = server.getsockname()[1]
    begun = time.monotonic()
    pids = [fork_rank(work_dir, rank, ranks, port, write) for rank in range(ranks)]
    statuses = {}
    lost = None
    while len(statuses) < ranks:
        for rank, pid in enumerate(pids):
            ended, status = os.waitpid(pid, os.WNOHANG) if rank not in statuses else (0, 0)
            if ended:
                statuses[rank] = os.waitstatus_to_exitcode(status)
        now = time.monotonic()
        left = [pid for rank, pid in enumerate(pids) if rank not in statuses]
        if since and (work_dir / since).exists():
            begun, since = now, None
        if after is not None and not since and now - begun > after and victim not in statuses:
            os.kill(pids[victim], signal.SIGKILL)
            after = None
        elif lost is None and any(statuses.values()):
            lost = now
            for pid in left:
                os.kill(pid, signal.SIGTERM)
        elif lost is not None and now - lost > 10:
            for pid in left:
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)
    return [statuses[rank] for rank in range(ranks)]


def final(work_dir):
    """Return all that a training leaves and that is no time."""
    last = torch.load(work_dir / "epoch_3.pth", weights_only=True)
    best = {path.name: torch.load(path, weights_only=True)["state_dict"] for path in work_dir.glob("best_*.pth")}
    tensors = {name: last[name] for name in ("state_dict", "ema_state_dict", "optimizer", "param_schedulers")}
    tensors |= {"best": best, "random_states": last["meta"]["random_states"]}
    with (work_dir / "results.csv").open(newline="") as file:
        # Losses and times are of what a run has trained itself.
        same = re.compile("epoch|iter|lr|coco/.*")
        rows = [{key: row[key] for key in row if same.fullmatch(key)} for row in csv.DictReader(file)]
    record = json.loads((work_dir / "run.json").read_text())
    facts = {
        "rows": rows,
        "iter": record["train"]["iter"],
        "ended": bool(record["train"]["ended"]),
        "evaluation": [record["evaluation"][key] for key in ("iter", "metrics")],
        "files": sorted(path.name for path in work_dir.iterdir() if path.suffix in (".pth", ".part")),
        "last": Path((work_dir / "last_checkpoint").read_text()).name,
    }
    return tensors, facts


def different_bits(one, other):
    """Count the bits in which two trees of tensors and plain values differ."""
    if isinstance(one, torch.Tensor):
        if (one.shape, one.dtype) != (other.shape, other.dtype):
            return 8 * one.nbytes
        pair = [value.contiguous().reshape(-1).view(torch.uint8).numpy() for value in (one, other)]
        return int(np.unpackbits(pair[0] ^ pair[1]).sum())
    if isinstance(one, dict):
        missing = len(one.keys() ^ other.keys())
        return missing + sum(different_bits(one[key], other[key]) for key in one.keys() & other.keys())
    if isinstance(one, (list, tuple)):
        return abs(len(one) - len(other)) + sum(map(different_bits, one, other))
    return int(one != other)


def main():
    plan = json.loads(sys.argv[2])
    make_digits(FOLDER / "data/digits", num_train=12, num_val=2)
    base = find_config("digits/mask-rcnn_r18-mini_fpn_fusedgn-all_digits.py").resolve()
    (FOLDER / "config.py").write_text(CONFIG.format(base=base))
    os.chdir(FOLDER)
    # The imports, once for all processes.
    runpy.run_path(str(TRAIN))
    __import__("mmdet.apis")
    ranks, whole = plan["ranks"], FOLDER / "whole"
    begun = time.monotonic()
    assert run(whole, ranks) == [0] * ranks, whole.with_suffix(".log").read_text()
    length, wanted = time.monotonic() - begun, final(whole)
    print(json.dumps({"seconds": length, "facts": wanted[1]}), flush=True)
    for number, moments in enumerate(plan["trainings"]):
        work_dir = FOLDER / f"killed_{number}"
        found = {"killed": 0, "writing": 0, "runs": 1}
        begun = time.monotonic()
        for moment in moments:
            if "write" in moment:
                statuses = run(work_dir, ranks, write=(moment["write"], moment["delay"]))
            else:
                after, victim = moment["part"] * length, moment.get("rank", 0)
                statuses = run(work_dir, ranks, after, victim, moment.get("since"))
            found["runs"] += 1
            found["killed"] += -signal.SIGKILL in statuses
            found["writing"] += any(work_dir.glob(".*.pth.*.part"))
        statuses = run(work_dir, ranks)
        found["seconds"] = time.monotonic() - begun
        found["statuses"] = statuses
        if not any(statuses):
            tensors, facts = final(work_dir)
            found |= {"bits": different_bits(wanted[0], tensors), "facts": facts}
        else:
            found["log"] = work_dir.with_suffix(".log").read_text()[-3000:]
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
