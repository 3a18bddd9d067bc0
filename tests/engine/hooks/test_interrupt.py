import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("mmengine")
import torch
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict

from mmgn.engine.hooks.interrupt import Interrupted, InterruptHook
from mmgn.engine.training import train, what_is_left


class Kill(Hook):
    """Signals this process in the middle of an iteration."""

    def __init__(self, iteration, signum=signal.SIGTERM, times=1):
        self.iteration, self.signum, self.times = iteration, signum, times

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter + 1 == self.iteration:
            for _ in range(self.times):
                os.kill(os.getpid(), self.signum)


def last(runner):
    return Path(runner.work_dir, "last_checkpoint").read_text()


# In the second epoch, and at the end of the first.
@pytest.mark.parametrize("iteration", [6, 4])
def test_a_resumed_run_trains_as_one_that_was_not_interrupted(build_runner, iteration):
    torch.manual_seed(0)
    whole = build_runner()
    train(whole)
    torch.manual_seed(0)
    first = build_runner(hooks=[Kill(iteration)])
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted) as caught:
        train(first)
    assert caught.value.signum == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == handler
    assert last(first).endswith("interrupted.pth")
    assert what_is_left(first) == f"The same command with --resume goes on from {last(first)}."

    second = build_runner(resume=True)
    train(second)
    assert first.model.seen + second.model.seen == whole.model.seen
    assert (second.iter, second.epoch) == (12, 3)
    assert second.optim_wrapper.get_lr() == whole.optim_wrapper.get_lr()
    got, want = second.model.state_dict(), whole.model.state_dict()
    assert all(got[key].equal(want[key]) for key in want)
    # A later checkpoint has taken its place.
    assert last(second).endswith("epoch_3.pth")
    assert not Path(first.work_dir, "interrupted.pth").exists()


def test_ctrl_c_is_told_apart_and_a_second_one_quits_at_once(build_runner):
    with pytest.raises(Interrupted) as caught:
        train(build_runner(hooks=[Kill(2, signal.SIGINT)]))
    assert caught.value.signum == signal.SIGINT
    runner = build_runner(hooks=[Kill(2, signal.SIGINT, times=2)])
    with pytest.raises(KeyboardInterrupt):
        train(runner)
    assert runner.iter == 1


def test_accumulated_gradients_are_not_lost(build_runner):
    wrapper = {"optimizer": {"type": "SGD", "lr": 0.1}, "accumulative_counts": 4}
    runner = build_runner(hooks=[Kill(6)], optim_wrapper=wrapper)
    with pytest.raises(Interrupted):
        train(runner)
    assert torch.load(last(runner), weights_only=True)["meta"]["iter"] == 8


class Late(Hook):
    def before_val(self, runner):
        os.kill(os.getpid(), signal.SIGTERM)


def test_several_optimizers_have_no_count_in_common():
    optimizers = {name: OptimWrapper(torch.optim.SGD([torch.zeros(1)], lr=1)) for name in ("generator", "critic")}
    # Nothing to stop for: it passes.
    InterruptHook().after_train_iter(SimpleNamespace(optim_wrapper=OptimWrapperDict(**optimizers), iter=0), 0)


def test_a_validation_is_finished_first(build_runner):
    runner = build_runner(hooks=[Late()], scores=[0.5, 0.6, 0.7], checkpoint={"save_best": "coco/segm_mAP"})
    with pytest.raises(Interrupted):
        train(runner)
    assert Path(runner.work_dir, "best_coco_segm_mAP_epoch_1.pth").is_file()
    resumed = build_runner(resume=True, scores=[0.6, 0.7], checkpoint={"save_best": "coco/segm_mAP"})
    train(resumed)
    assert len(resumed.model.seen) == 8
    assert [path.name for path in Path(runner.work_dir).glob("best*")] == ["best_coco_segm_mAP_epoch_3.pth"]


class Groups(torch.utils.data.Dataset):
    """Tells the process group that an item was loaded in."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return {"inputs": torch.tensor([float(os.getpgrp())])}


def test_data_loading_workers_are_out_of_a_terminals_reach(build_runner):
    # The numbers of processes that float32 holds exactly.
    runner = build_runner(epochs=1, dataset=Groups(), workers=1)
    train(runner)
    groups = {number for batch in runner.model.seen for number in batch}
    assert len(groups) == 1
    assert groups != {os.getpgrp()}
    # Afterwards processes stay where they are.
    child = os.fork()
    if child == 0:
        os._exit(os.getpgrp() != os.getpgid(os.getppid()))
    assert os.waitpid(child, 0)[1] == 0


# One rank of two; the second alone gets the signal.
RANK = """
import importlib.util, os, signal, sys
import torch.distributed
import mmgn
from mmengine.hooks import Hook
from mmgn.engine.hooks.interrupt import Interrupted
from mmgn.engine.training import train

toy, work, rank = sys.argv[1], sys.argv[2], int(sys.argv[3])
spec = importlib.util.spec_from_file_location("toy", toy)
toy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toy)
torch.distributed.init_process_group("gloo", init_method=f"file://{work}.meeting", rank=rank, world_size=2)

class Kill(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if rank == 1 and runner.iter == 2:
            os.kill(os.getpid(), signal.SIGTERM)

runner = toy.toy_runner(
    work,
    hooks=[Kill()],
    launcher="pytorch",
    cfg={"model_wrapper_cfg": {"type": "MMDistributedDataParallel", "device_ids": None}},
)
try:
    train(runner)
except Interrupted as error:
    print(runner.iter, error.signum)
"""


def test_ranks_stop_together_when_one_is_told(tmp_path):
    toy = Path(__file__).parents[1] / "conftest.py"
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(toy), str(tmp_path / "work"), str(rank)],
            env=os.environ | {"LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [rank.communicate(timeout=240) for rank in ranks]
    # In the third iteration, which the loop has not counted yet.
    assert [out.split() for out, _ in outputs] == [["2", "15"]] * 2, outputs
    checkpoint = torch.load(tmp_path / "work/interrupted.pth", weights_only=True)
    assert checkpoint["meta"]["iter"] == 3
