"""Data loading workers whose process is killed, or whose batch cannot be handed over."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("mmengine")
import torch

from mmgn.engine.hooks.workers import WorkersHook
from mmgn.engine.training import TrainingError, train

RUN = """
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from conftest import Linear, Numbers, toy_runner
from mmengine.hooks import Hook
import mmgn

class Large(Numbers):
    def __getitem__(self, index):
        Path(f"{os.getpid()}.pid").touch()
        return super().__getitem__(index) | {"data_samples": bytes(1 << 20)}

class Model(Linear):
    def forward(self, inputs, data_samples, mode):
        return super().forward(inputs, mode)

class Die(Hook):
    def die(self, *args, **kwargs):
        # The workers have loaded more than their pipe holds.
        time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)

setattr(Die, f"before_{sys.argv[2]}_iter", Die.die)
hooks = [dict(type="WorkersHook"), Die()]
toy_runner("work", hooks=hooks, dataset=Large(), model=Model(), scores=[1, 1, 1], workers=2).train()
"""


def runs(pid):
    """Tell whether a process runs; one that ended without a parent that asks is still listed."""
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
@pytest.mark.parametrize("loop", ["train", "val"])
def test_workers_of_a_killed_process_end(tmp_path, loop):
    tests = str(Path(__file__).parents[1])
    process = subprocess.run([sys.executable, "-c", RUN, tests, loop], cwd=tmp_path, timeout=300)
    assert process.returncode == -9
    pids = {int(path.stem) for path in tmp_path.glob("*.pid")}
    assert len(pids) >= 2
    deadline = time.monotonic() + 30
    while any(map(runs, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in pids if runs(pid)]


class Unpicklable(torch.utils.data.Dataset):
    """Eight numbers, the fifth of which is a function that has no name."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return {"inputs": torch.tensor([1.0]), "data_samples": (lambda: 5) if index == 5 else index}


def test_a_batch_that_cannot_be_handed_over_ends_training(build_runner, capfd):
    runner = build_runner(hooks=[WorkersHook()], dataset=Unpicklable(), workers=1)
    runner.model.forward = lambda inputs, data_samples, mode: {"loss": runner.model.head.bias.sum()}
    with pytest.raises(TrainingError, match=r"DataLoader worker \(pid.*/dev/shm\) may be full"):
        train(runner)
    assert "a data loading worker cannot hand over a batch: Can't pickle" in capfd.readouterr().err


def test_a_loaders_own_start_of_a_worker_is_made_too(build_runner):
    started = []
    runner = build_runner(hooks=[WorkersHook()])
    loader = runner.train_loop.dataloader
    loader.worker_init_fn = started.append
    runner.call_hook("before_run")
    # Here, as a worker would that is a thread of this process: nothing looks for another.
    loader.worker_init_fn(3)
    assert started == [3]
    assert not [thread for thread in threading.enumerate() if "_end_with" in thread.name]
