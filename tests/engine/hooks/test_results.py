import csv
from pathlib import Path

import pytest

pytest.importorskip("mmengine")
from mmengine.hooks import Hook

RESULTS = {"type": "ResultsHook"}


class Losses(Hook):
    """Keeps the loss and the rate of each iteration, as the model gave them."""

    priority = "VERY_LOW"

    def __init__(self):
        self.losses, self.rates = [], []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.rates.append(runner.optim_wrapper.get_lr()["lr"][0])

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append(float(outputs["loss"].detach()))


def rows(runner):
    with Path(runner.work_dir, "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_line_for_each_epoch(build_runner):
    seen = Losses()
    # Validates every second epoch, and after the last.
    runner = build_runner(
        hooks=[RESULTS, seen],
        scores=[0.25, 0.5],
        train_cfg={"type": "ResumableEpochLoop", "max_epochs": 3, "val_interval": 2},
    )
    runner.train()
    lines = rows(runner)
    assert [(line["epoch"], line["iter"]) for line in lines] == [("1", "4"), ("2", "8"), ("3", "12")]
    assert [line["coco/segm_mAP"] for line in lines] == ["", "0.25", "0.5"]
    for i, line in enumerate(lines):
        part = slice(4 * i, 4 * i + 4)
        assert float(line["loss"]) == pytest.approx(sum(seen.losses[part]) / 4, rel=1e-5)
        assert float(line["lr"]) == pytest.approx(seen.rates[part][-1], rel=1e-5)
        assert 0 < float(line["s_per_iter"]) < 60
        # torch alone takes more than this, and it is not in KiB or bytes.
        assert 50 < float(line["memory_mb"]) < 100_000
    assert set(lines[0]) == {"epoch", "iter", "lr", "loss", "s_per_iter", "memory_mb", "coco/segm_mAP"}


def test_a_resumed_run_goes_on_where_it_resumes(build_runner):
    runner = build_runner(epochs=3, hooks=[RESULTS])
    runner.train()
    before = rows(runner)
    # From the second of the three epochs; this part validates, too.
    resume = {"resume": True, "load_from": f"{runner.work_dir}/epoch_2.pth"}
    again = build_runner(epochs=4, hooks=[RESULTS], scores=[0.1, 0.2], **resume)
    again.train()
    lines = rows(again)
    assert [line["iter"] for line in lines] == ["4", "8", "12", "16"]
    assert [line["coco/segm_mAP"] for line in lines] == ["", "", "0.1", "0.2"]
    assert [line["loss"] for line in lines[:2]] == [line["loss"] for line in before[:2]]
    # Training from scratch starts anew, and a file that is none of its own is no reason to fail.
    Path(runner.work_dir, "results.csv").write_text("a,b\n1,2\n")
    build_runner(epochs=1, hooks=[RESULTS], resume=True, load_from=f"{runner.work_dir}/epoch_1.pth").train()
    build_runner(epochs=1, hooks=[RESULTS]).train()
    assert [line["iter"] for line in rows(runner)] == ["4"]


def test_by_iterations_a_line_for_each_validation(build_runner):
    loop = {"type": "IterBasedTrainLoop", "max_iters": 8, "val_interval": 3}
    runner = build_runner(
        hooks=[RESULTS], scores=[0.1, 0.2, 0.3], train_cfg=loop, checkpoint={"by_epoch": False, "interval": 4}
    )
    runner.train()
    lines = rows(runner)
    assert [(line["epoch"], line["iter"]) for line in lines] == [("0.75", "3"), ("1.5", "6"), ("2", "8")]
    assert [line["coco/segm_mAP"] for line in lines] == ["0.1", "0.2", "0.3"]
