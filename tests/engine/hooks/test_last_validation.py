import csv
import json
from pathlib import Path

import pytest

pytest.importorskip("mmengine")
from mmengine.hooks import Hook

from mmgn.engine.training import train

RECORDED = [{"type": "RunRecordHook"}, {"type": "ResultsHook"}]
LOOPS = {
    "ResumableEpochLoop": {"max_epochs": 2},
    "EpochBasedTrainLoop": {"max_epochs": 2},
    "IterBasedTrainLoop": {"max_iters": 8, "val_interval": 4},
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
