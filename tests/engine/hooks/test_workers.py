"""Data loading workers whose process is killed, or whose batch cannot be handed over."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("mmengine")

from mmgn.engine.hooks.workers import WorkersHook

RUN = """
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from conftest import Linear, Numbers, toy_runner
from mmengine.hooks import Hook
import mmgn
from mmgn.engine.training import train

class Large(Numbers):
    def __getitem__(self, index):
        Path(f"{os.getpid()}.pid").touch()
        return super().__getitem__(index) | {"data_samples": bytes(1 << 20)}

class Unpicklable(Numbers):
    def __getitem__(self, index):
        return super().__getitem__(index) | {"data_samples": lambda: index}

class Model(Linear):
    def forward(self, inputs, data_samples, mode):
        return super().forward(inputs, mode)

class Die(Hook):
    def die(self, *args, **kwargs):
        # The workers have loaded more than their pipe holds.
        time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)

setattr(Die, sys.argv[3], Die.die)
hooks = [dict(type="WorkersHook"), Die()]
dataset = globals()[sys.argv[2]]()
train(toy_runner("work", hooks=hooks, dataset=dataset, model=Model(), scores=[1, 1, 1], workers=2))
"""


def run(folder, dataset, dies):
    """Train on a data set, in a process that kills itself where a hook has this method; returns status and errors."""
    command = [sys.executable, "-c", RUN, str(Path(__file__).parents[1]), dataset, dies]
    # No pipe, which workers that stay would keep open.
    with (folder / "errors.txt").open("w+") as errors:
        code = subprocess.run(command, cwd=folder, stderr=errors, timeout=300).returncode
        errors.seek(0)
        return code, errors.read()


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
    assert run(tmp_path, "Large", f"before_{loop}_iter")[0] == -signal.SIGKILL
    pids = {int(path.stem) for path in tmp_path.glob("*.pid")}
    assert len(pids) >= 2
    deadline = time.monotonic() + 30
    while any(map(runs, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in pids if runs(pid)]


def test_a_batch_that_cannot_be_handed_over_ends_training(tmp_path):
    code, said = run(tmp_path, "Unpicklable", "never")
    assert code == 1
    assert "a data loading worker cannot hand over a batch: Can't pickle" in said
    assert "\nmmgn.engine.training.TrainingError: training has stopped after" in said
    assert "DataLoader worker (pid" in said and "shared memory (/dev/shm) may be full" in said


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
