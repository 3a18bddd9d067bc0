"""A training by iterations: the batches that are left of it, and where it validates."""

import pytest

pytest.importorskip("mmengine")
from mmengine.hooks import Hook

ITERATIONS = {"train_cfg": {"type": "ResumableIterLoop", "max_iters": 9}}


def test_its_batches_are_those_that_are_left_whatever_loop_asks_for_them(build_runner):
    whole = build_runner(**ITERATIONS)
    whole.train()
    assert len(whole.model.seen) == 9
    runner = build_runner(**ITERATIONS)
    # As of a checkpoint.
    runner.train_loop._iter = 5
    left = [next(runner.train_loop.dataloader_iterator)["inputs"] for _ in range(4)]
    assert [sorted(int(number) for number in batch) for batch in left] == whole.model.seen[5:]


class Events(Hook):
    """Keeps what a loop calls, and stops it after an iteration."""

    def __init__(self, stop):
        self.stop, self.calls = stop, []

    def before_train(self, runner):
        self.calls.append("train")

    def before_train_epoch(self, runner):
        self.calls.append("epoch")

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.calls.append(batch_idx)
        runner.train_loop.stop_training = runner.iter == self.stop

    def before_val(self, runner):
        self.calls.append("val")

    def after_train_epoch(self, runner):
        self.calls.append("epoch's end")

    def after_train(self, runner):
        self.calls.append("train's end")


@pytest.mark.parametrize("stop", [None, 6])
def test_it_calls_and_validates_as_mmengines_does(build_runner, stop):
    more = {"max_iters": 9, "val_begin": 3, "val_interval": 2, "dynamic_intervals": [(6, 3)]}
    calls = {}
    for loop in ("IterBasedTrainLoop", "ResumableIterLoop"):
        events = Events(stop)
        runner = build_runner(hooks=[events], scores=range(9), train_cfg={"type": loop} | more)
        assert runner.train() is runner.model
        calls[loop] = events.calls
    assert calls["ResumableIterLoop"] == calls["IterBasedTrainLoop"]
    assert calls["ResumableIterLoop"].count("val") > 1
