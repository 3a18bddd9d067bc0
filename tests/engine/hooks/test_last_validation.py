import csv
import json
from pathlib import Path

import pytest

pytest.importorskip("mmengine")
from mmengine.hooks import Hook
from mmengine.registry import LOOPS as REGISTRY
from mmengine.runner import BaseLoop

from mmgn.engine.training import train

RECORDED = [{"type": "RunRecordHook"}, {"type": "ResultsHook"}]
LOOPS = {
    "ResumableEpochLoop": {"max_epochs": 2},
    "EpochBasedTrainLoop": {"max_epochs": 2},
    "ResumableIterLoop": {"max_iters": 8, "val_interval": 4},
}


class Killed(Hook):
    """Ends the process, as far as a test can, in the last validation."""

    def before_val(self, runner):
        if runner.iter == 8:
            raise SystemExit


@pytest.mark.parametrize("loop", LOOPS)
def test_a_last_validation_that_was_killed_is_made_up_once(build_runner, loop):
    by_epoch = "Epoch" in loop
    given = dict(
        train_cfg={"type": loop} | LOOPS[loop],
        checkpoint={"interval": 1 if by_epoch else 4, "by_epoch": by_epoch, "save_best": "coco/segm_mAP"},
    )
    first = build_runner(hooks=[*RECORDED, Killed()], scores=[0.5], **given)
    with pytest.raises(SystemExit):
        train(first)
    folder = Path(first.work_dir)
    resumed = build_runner(hooks=RECORDED, scores=[0.7], resume=True, **given)
    train(resumed)
    assert not resumed.model.seen
    record = json.loads((folder / "run.json").read_text())
    assert record["train"]["ended"]
    assert (record["train"]["iter"], record["evaluation"]["iter"]) == (8, 8)
    assert record["evaluation"]["metrics"] == {"coco/segm_mAP": 0.7}
    with (folder / "results.csv").open(newline="") as file:
        assert [row["coco/segm_mAP"] for row in csv.DictReader(file)][-1] == "0.7"
    assert len(list(folder.glob("best_coco_segm_mAP_*_*.pth"))) == 1
    # There is no other score to be given.
    train(build_runner(hooks=RECORDED, scores=[], resume=True, **given))


class KilledAfter(Hook):
    """Ends the process in the third epoch, or in the validation before it."""

    def __init__(self, validating):
        self.validating = validating

    def before_val(self, runner):
        if self.validating and runner.iter == 8:
            raise SystemExit

    def before_train_epoch(self, runner):
        if runner.epoch == 2:
            raise SystemExit


@pytest.mark.parametrize("validating", [True, False])
def test_a_validation_within_a_training_is_made_up(build_runner, validating):
    # A metric that goes down at once, and a rate that goes down with it: the checkpoint is from before.
    plateau = {"type": "ReduceOnPlateauLR", "monitor": "coco/segm_mAP", "rule": "greater", "patience": 0, "factor": 0.5}
    given = dict(checkpoint={"save_best": "coco/segm_mAP"}, param_scheduler=[plateau])
    scores = [0.5, 0.4, 0.45]
    whole = build_runner(scores=scores, **given)
    train(whole)
    first = build_runner(hooks=[*RECORDED, KilledAfter(validating)], scores=scores, **given)
    with pytest.raises(SystemExit):
        train(first)
    resumed = build_runner(hooks=RECORDED, scores=scores[1:], resume=True, **given)
    train(resumed)
    assert resumed.optim_wrapper.get_lr() == whole.optim_wrapper.get_lr()
    folder = Path(resumed.work_dir)
    with (folder / "results.csv").open(newline="") as file:
        assert [row["coco/segm_mAP"] for row in csv.DictReader(file)] == ["0.5", "0.4", "0.45"]
    assert [path.name for path in folder.glob("best*")] == ["best_coco_segm_mAP_epoch_1.pth"]


def test_what_a_checkpoint_knows_to_be_validated_is_not_validated_again(build_runner):
    given = dict(checkpoint={"save_best": "coco/segm_mAP"})
    first = build_runner(hooks=[*RECORDED, KilledAfter(False)], scores=[0.4, 0.5], **given)
    with pytest.raises(SystemExit):
        train(first)
    # The second was the best, and its checkpoint is saved again.
    train(build_runner(hooks=RECORDED, scores=[0.6], resume=True, **given))


@REGISTRY.register_module()
class OneBatchLoop(BaseLoop):
    """A loop with no more than mmengine asks for."""

    iter = epoch = 0
    max_iters = max_epochs = 1

    def __init__(self, runner, dataloader):
        super().__init__(runner, dataloader)
        self._iter = self._epoch = 0

    def run(self):
        self.iter = 1
        self.runner.call_hook("before_train")
        return self.runner.model


def test_a_loop_that_does_not_tell_when_it_validates_is_left_to_it(build_runner):
    train(build_runner(train_cfg={"type": "OneBatchLoop"}, scores=[]))
