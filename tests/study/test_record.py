"""What a cell has left, read."""

import json
import signal

import pytest

pytest.importorskip("mmdet")

from mmgn.study.grid import Cell
from mmgn.study.record import EXIT_STATUS, LOG, STARTS, Outcome, job_outcome, outcome_of, read_outcome, row, write_csv
from mmgn.study.results import read_csv
from mmgn.study.tasks import TASKS

CLASSIFICATION = TASKS["classification"]


def record(folder, metrics, iteration=62, ended="2026-01-01T00:00:00+00:00"):
    train = dict(ended=ended, iter=62, seconds=12.5, device="a CPU")
    content = dict(train=train, evaluation=dict(iter=iteration, metrics=metrics))
    (folder / "run.json").write_text(json.dumps(content))


def test_a_finished_cell_has_figures_in_percent(tmp_path):
    record(tmp_path, {"accuracy/top1": 87.5})
    outcome = read_outcome(tmp_path, CLASSIFICATION)
    assert outcome == Outcome("done", "", {"top1_error": 12.5}, 12.5, 62, "a CPU")
    assert TASKS["detection"].metrics({"coco/bbox_mAP": 0.25, "coco/segm_mAP": 0.125}) == {
        "box_AP": 25.0,
        "mask_AP": 12.5,
    }
    assert TASKS["segmentation"].metrics({"mIoU": 31.5, "aAcc": 90.0}) == {"mIoU": 31.5}


def test_a_cell_is_finished_once_its_last_weights_are_judged(tmp_path):
    assert read_outcome(tmp_path, CLASSIFICATION) is None
    record(tmp_path, {"accuracy/top1": 87.5}, ended=None)
    assert read_outcome(tmp_path, CLASSIFICATION) is None
    record(tmp_path, {"accuracy/top1": 87.5}, iteration=31)
    assert read_outcome(tmp_path, CLASSIFICATION) is None
    (tmp_path / "run.json").write_text('{"train": {"en')
    assert read_outcome(tmp_path, CLASSIFICATION) is None


def test_figures_that_are_none_are_a_failure(tmp_path):
    record(tmp_path, {"accuracy/top5": 99.0})
    outcome = read_outcome(tmp_path, CLASSIFICATION)
    assert (outcome.status, outcome.reason) == (
        "failed",
        "the validation gave no accuracy/top1; its figures: accuracy/top5",
    )
    record(tmp_path, {"coco/bbox_mAP": 0.5})
    assert read_outcome(tmp_path, TASKS["detection"]).reason.startswith("the validation gave no coco/segm_mAP")
    record(tmp_path, {"accuracy/top1": None})
    assert read_outcome(tmp_path, CLASSIFICATION).status == "failed"


@pytest.mark.parametrize(
    ("log", "exitcode", "reason"),
    [
        ("Traceback\nValueError: Expected more than 1 value per channel\n\n", 1, "ValueError: Expected"),
        ("loss become infinite or NaN!\nTraceback\nAssertionError: None\n", 1, "the loss became infinite or NaN"),
        (
            "mmgn.engine.nonfinite.NonFiniteError: the loss of iteration 1 is not finite: loss is nan\n",
            1,
            "the loss became infinite or NaN",
        ),
        ("torch.OutOfMemoryError: CUDA\n\nThe other ranks were stopped.\n", 1, "torch.OutOfMemoryError: CUDA"),
        ("train.py: no such file\n", 1, "train.py: no such file"),
        ("half a line\n", 2, "half a line"),
        ("half a line", -signal.SIGKILL, "ended by SIGKILL, as the kernel does where memory ends"),
        ("half a line", -signal.SIGTERM, "ended by SIGTERM"),
        ("", 3, "exit status 3, nothing printed"),
        (f"{STARTS}\nloss become infinite or NaN!\n{STARTS}\nOSError: no disk\n", 1, "OSError: no disk"),
        (f"ValueError: before\n{STARTS}\n", 3, "exit status 3, nothing printed"),
    ],
)
def test_a_failure_tells_why(tmp_path, log, exitcode, reason):
    (tmp_path / LOG).write_text(log)
    outcome = outcome_of(tmp_path, CLASSIFICATION, exitcode)
    assert outcome.status == "failed"
    assert outcome.reason.startswith(reason)


def test_a_process_that_fails_is_a_failure_whatever_is_recorded(tmp_path):
    record(tmp_path, {"accuracy/top1": 87.5})
    (tmp_path / LOG).write_text("OSError: the disk is full\n")
    assert outcome_of(tmp_path, CLASSIFICATION, 0).status == "done"
    assert outcome_of(tmp_path, CLASSIFICATION, 1) == Outcome("failed", "OSError: the disk is full")


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("1", "ValueError: wrong"),
        (str(128 + signal.SIGKILL), "ended by SIGKILL"),
        ("255", "ValueError: wrong"),
        # Its time was over, or it is running.
        (str(128 + signal.SIGTERM), None),
        (None, None),
    ],
)
def test_a_job_that_has_ended_with_an_error_is_a_failure(tmp_path, status, reason):
    (tmp_path / LOG).write_text("ValueError: wrong\n")
    if status:
        (tmp_path / EXIT_STATUS).write_text(f"{status}\n")
    outcome = job_outcome(tmp_path, CLASSIFICATION)
    assert (outcome and outcome.status) == (reason and "failed")
    assert not reason or outcome.reason.startswith(reason)
    # What is done is done.
    record(tmp_path, {"accuracy/top1": 87.5})
    assert job_outcome(tmp_path, CLASSIFICATION).status == "done"


def test_iterations_that_were_trained_are_told_in_the_place_of_the_planned():
    facts = dict(total_batch=16, images=1600, iterations=100)
    cell = Cell("coco", "GN", 8, 1, num_groups=32)
    assert row(cell, Outcome("missing"), facts)["iterations"] == 100
    told = row(cell, Outcome("done", iterations=98), facts)
    assert (told["iterations"], told["images"]) == (98, 1568)


def test_study_csv_is_read_as_it_was_written(tmp_path):
    done = Outcome("done", "", {"box_AP": 31.25, "mask_AP": 30.5}, 12.34, 100, "a CPU")
    skipped = Outcome("skipped", "needs GPUs, and there are none")
    facts = dict(task="detection", processes=2, total_batch=16, lr="0.02", images=1600, iterations=100, config="c.py")
    cells = {Cell("coco", "GN", 8, 1, num_groups=32): done, Cell("coco", "SyncBN", 8, 1): skipped}
    path = tmp_path / "study.csv"
    rows = [row(cell, outcome, facts | {"start": "scratch"}) for cell, outcome in cells.items()]
    write_csv(path, ["held: all, but the norm"], TASKS["detection"].columns, rows)
    lines = path.read_text().splitlines()
    assert lines[0] == "# held: all, but the norm"
    assert lines[1] == (
        "task,data,norm,num_groups,channels_per_group,batch_size,processes,total_batch,lr,images,iterations,seed,start,"
        "status,reason,box_AP,mask_AP,train_seconds,config"
    )
    assert lines[2] == "detection,coco,GN,32,,8,2,16,0.02,1600,100,1,scratch,done,,31.2500,30.5000,12.3,c.py"
    _, (one, other) = read_csv(path)
    assert one.figures == {"box_AP": 31.25, "mask_AP": 30.5}
    assert (other.status, other.reason, other.figures) == ("skipped", skipped.reason, {})
