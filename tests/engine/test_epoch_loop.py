"""Epochs that have another length when a training is resumed."""

import csv
import json
import os
import signal
from pathlib import Path

import pytest
from mmengine.hooks import Hook

from mmgn.engine.hooks.interrupt import Interrupted
from mmgn.engine.training import train

LOADER = {"num_workers": 0, "sampler": {"type": "DefaultSampler", "shuffle": True}}
RECORDED = [{"type": "ResultsHook"}, {"type": "RunRecordHook"}]


class KillAt(Hook):
    def __init__(self, iteration):
        self.iteration = iteration

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.iteration:
            os.kill(os.getpid(), signal.SIGTERM)


def batches_of(build_runner, size, **more):
    whole = build_runner(resume=True, hooks=RECORDED, **more)
    loader = LOADER | {"batch_size": size, "dataset": whole._train_dataloader["dataset"]}
    return build_runner(resume=True, hooks=RECORDED, train_dataloader=loader, **more)


@pytest.mark.parametrize("loop", ["ResumableEpochLoop", "EpochBasedTrainLoop"])
@pytest.mark.parametrize(("size", "length"), [(4, 2), (1, 8)])
def test_every_epoch_that_is_left_is_trained(build_runner, loop, size, length):
    train(build_runner(epochs=3, hooks=RECORDED, train_cfg={"type": loop, "max_epochs": 3}))
    more = batches_of(build_runner, size, epochs=5)
    train(more)
    # Three epochs of four iterations, and two of others.
    assert len(more.model.seen) == 2 * length
    assert (more.iter, more.max_iters, more.epoch) == (12 + 2 * length,) * 2 + (5,)
    with Path(more.work_dir, "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["epoch"], int(row["iter"])) for row in rows] == [
        *((str(epoch), 4 * epoch) for epoch in (1, 2, 3)),
        *((str(3 + epoch), 12 + length * epoch) for epoch in (1, 2)),
    ]
    record = json.loads(Path(more.work_dir, "run.json").read_text())["train"]
    assert (record["epoch"], record["iter"], record["max_iters"]) == (5, more.iter, more.iter)


def test_the_same_share_of_an_interrupted_epoch_is_left(build_runner):
    # Half of the second of three epochs is over.
    with pytest.raises(Interrupted):
        train(build_runner(hooks=[KillAt(5), *RECORDED]))
    more = batches_of(build_runner, 1)
    train(more)
    assert len(more.model.seen) == 4 + 8
    assert (more.iter, more.max_iters, more.epoch) == (6 + 12, 6 + 12, 3)
    # And once more, with the first length.
    again = build_runner(epochs=4, resume=True, hooks=RECORDED)
    train(again)
    assert (len(again.model.seen), again.iter) == (4, 18 + 4)
