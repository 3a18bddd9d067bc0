import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("mmengine")
from mmgn.engine.hooks.progress import ProgressHook, _headline, _Lines, _validations_left

REPO = Path(__file__).parents[3]

# Trains on 8 images in batches of 2, so 4 iterations an epoch, and validates on 6.
RUN = """
import json, sys, time
import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.runner import Runner
import mmgn
from mmgn.engine.hooks.progress import ProgressHook

options = json.loads(sys.argv[1])
if 'rank' in options:
    meeting = 'file://' + options['work_dir'] + '.meeting'
    torch.distributed.init_process_group('gloo', init_method=meeting, rank=options['rank'], world_size=2)

class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))
        self.calls = 0

    def forward(self, inputs, mode):
        if mode == 'predict':
            return [None] * len(inputs)
        self.calls += 1
        time.sleep(options.get('seconds', 0))
        if self.calls == options.get('warn_at'):
            runner.logger.warning('loss looks odd')
            print('printed by a user')
        if self.calls == options.get('fail_at'):
            raise RuntimeError('out of memory')
        return {'loss': self.scale.sum() * 0 + 0.25}

class Images(torch.utils.data.Dataset):
    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return {'inputs': torch.ones(1)}

class Metric(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results += data_samples

    def compute_metrics(self, results):
        return {'coco/bbox_mAP': 0.5, 'coco/bbox_mAP_50': 0.9, 'coco/segm_mAP': 0.375}

def loader(length):
    sampler = dict(type='DefaultSampler', shuffle=False)
    return dict(dataset=Images(length), batch_size=2, num_workers=0, sampler=sampler)

runner = Runner(
    Model(), work_dir=options['work_dir'],
    train_dataloader=loader(options.get('images', 8)), train_cfg=options['train_cfg'],
    optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
    val_dataloader=loader(6), val_evaluator=dict(type=Metric), val_cfg=dict(),
    test_dataloader=loader(6), test_evaluator=dict(type=Metric), test_cfg=dict(),
    resume='load_from' in options, load_from=options.get('load_from'),
    custom_hooks=[dict(type='ProgressHook', **options.get('hook', {}))],
)
print('=== begin', flush=True)
for mode in options.get('modes', ['train']):
    getattr(runner, mode)()
print('=== end', flush=True)
runner.logger.info('after the run')
"""

BY_EPOCH = {"by_epoch": True, "max_epochs": 5, "val_interval": 2}
BY_ITER = {"type": "IterBasedTrainLoop", "max_iters": 40, "val_interval": 20}


def command(tmp_path: Path, **options) -> dict:
    env = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1", "TERM": "xterm", "COLUMNS": "160"}
    options = {"work_dir": str(tmp_path / "work"), "train_cfg": BY_EPOCH, **options}
    return {"args": [sys.executable, "-c", RUN, json.dumps(options)], "env": env}


def run_in_log(tmp_path: Path, **options) -> list[str]:
    """The lines a run prints where stdout is no terminal."""
    result = subprocess.run(**command(tmp_path, **options), capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout.split("=== begin\n")[1].splitlines()


def run_on_terminal(tmp_path: Path, interrupt_on: str = "", **options) -> tuple[int, str]:
    """The exit status and everything a run writes to its pseudo-terminal."""
    parent, child = pty.openpty()
    process = subprocess.Popen(**command(tmp_path, **options), stdin=child, stdout=child, stderr=child)
    os.close(child)
    written = b""
    while True:
        try:
            written += os.read(parent, 65536)
        except OSError:
            # Linux says EIO once the other end is closed.
            break
        if interrupt_on and interrupt_on.encode() in written:
            process.send_signal(signal.SIGINT)
            interrupt_on = ""
    os.close(parent)
    return process.wait(60), written.decode().partition("=== begin")[2]


def screen(written: str) -> list[str]:
    """What is left to read after carriage returns, cursor-up and erase-line have had their effect."""
    rows, row = [""], 0
    for token in re.findall(r"\x1b\[[?\d;]*[a-zA-Z]|\r|\n|[^\x1b\r\n]+", written):
        if token == "\n":
            row += 1
            rows += [""] * (row + 1 - len(rows))
        elif token.endswith("A") and token.startswith("\x1b"):
            row -= int(token[2:-1] or 1)
        elif token == "\x1b[2K":
            rows[row] = ""
        elif not token.startswith("\x1b") and token != "\r":
            rows[row] += token
    return rows


def percents(lines: list[str]) -> list[int]:
    return [int(match[1]) for line in lines if (match := re.match(r"train +(\d+)%", line))]


@pytest.fixture(scope="module")
def epochs_log(tmp_path_factory) -> tuple[Path, list[str]]:
    path = tmp_path_factory.mktemp("epochs")
    return path / "work", run_in_log(path, warn_at=3)


@pytest.fixture(scope="module")
def iters_log(tmp_path_factory) -> list[str]:
    # Images for all iterations: mmengine's endless iterator sleeps for 2 s whenever it starts again.
    options = {"train_cfg": BY_ITER, "images": 80, "hook": {"quiet_console": False}}
    return run_in_log(tmp_path_factory.mktemp("iters"), **options)


@pytest.mark.parametrize("by_epoch", [True, False])
def test_log_lines_rise_to_100_percent_and_say_the_time_left(epochs_log, iters_log, by_epoch):
    lines, total = (epochs_log[1], 20) if by_epoch else (iters_log, 40)
    shown = percents(lines)
    # The last one is printed again after the last validation.
    assert shown == [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 100]
    train = [line for line in lines if line.startswith("train")]
    assert all("loss 0.250" in line and re.search(r"left \d:\d\d:\d\d", line) for line in train[1:])
    assert f"iter {total}/{total}" in train[-1]
    assert ("epoch 5/5" in train[-1]) == by_epoch
    assert "mAP" not in train[1]
    assert "bbox_mAP 0.500  segm_mAP 0.375" in train[-1]
    assert "left 0:00:00" in train[-1]


def test_validations_in_a_log_are_one_line_each(epochs_log):
    lines = [line for line in epochs_log[1] if line.startswith("val")]
    assert len(lines) == 3
    assert all(line.startswith("val 100%  image 6/6  bbox_mAP 0.500") for line in lines)


def test_info_lines_go_to_the_log_file_only_and_come_back_after_the_run(epochs_log, iters_log):
    work_dir, lines = epochs_log
    end = lines.index("=== end")
    assert not any("INFO" in line for line in lines[:end])
    assert any("loss looks odd" in line for line in lines[:end])
    assert any("after the run" in line for line in lines[end:])
    (log,) = work_dir.glob("*/*.log")
    assert "Epoch(val)" in log.read_text()
    assert any("INFO" in line and "(val)" in line for line in iters_log)


def test_a_resumed_run_starts_where_it_stopped(tmp_path, epochs_log):
    lines = run_in_log(tmp_path, load_from=str(epochs_log[0] / "epoch_2.pth"))
    train = [line for line in lines if line.startswith("train")]
    assert train[0] == "train  40%  epoch 3/5  iter 8/20"
    assert percents(train) == [40, 50, 60, 70, 80, 90, 100, 100]


def test_evaluation_alone_shows_its_images(tmp_path):
    lines = run_in_log(tmp_path, modes=["val", "test"])
    for mode in ("val", "test"):
        shown = [line for line in lines if line.startswith(mode)]
        assert [re.search(r"image \d/6", line)[0][6] for line in shown] == ["0", "2", "4", "6", "6"]
        assert [re.search(r"(\d+)%", line)[1] for line in shown] == ["0", "33", "66", "100", "100"]
        assert "segm_mAP 0.375" in shown[-1]


def test_only_the_main_process_shows_progress(tmp_path):
    ranks = [subprocess.Popen(**command(tmp_path, rank=rank), stdout=subprocess.PIPE, text=True) for rank in (0, 1)]
    outputs = [process.communicate(timeout=120)[0].splitlines() for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0]
    assert [percents(lines)[-1:] for lines in outputs] == [[100], []]
    assert not any(line.startswith("val") for line in outputs[1])


def test_lines_come_every_so_many_seconds_too(capsys):
    lines = _Lines(seconds=0.05)
    lines.start("train", 0, 1000, "")
    assert not lines.due("train", 1, 1000)
    time.sleep(0.06)
    assert lines.due("train", 1, 1000)
    lines.show("train", 1, 1000, "text")
    assert not lines.due("train", 99, 1000)
    assert lines.due("train", 100, 1000)
    assert capsys.readouterr().out == "train   0%  \ntrain   0%  text\n"


def test_a_terminal_shows_progress_and_ends_with_a_full_bar(tmp_path):
    status, written = run_on_terminal(tmp_path, warn_at=3, seconds=0.1)
    assert status == 0
    done = [int(n) for n in re.findall(r"iter (\d+)/20", written)]
    assert done == sorted(done) and len(set(done)) >= 5
    assert "image 6/6" in written
    rows = [row for row in screen(written) if row]
    (bar,) = [row for row in rows if row.startswith("train")]
    assert re.search(r"━{4,} 100%  left 0:00:00  epoch 5/5  iter 20/20  loss 0\.250  bbox_mAP 0\.500", bar)
    assert not any(row.startswith("val") for row in rows)
    # Other output is kept, above the bar.
    assert rows.index("printed by a user") < rows.index(bar)
    assert sum("loss looks odd" in row for row in rows) == 1
    assert any("after the run" in row for row in rows[rows.index(bar) :])
    assert written.rfind("\x1b[?25h") > written.rfind("\x1b[?25l")


@pytest.mark.parametrize("how", ["exception", "ctrl-c"])
def test_a_broken_run_leaves_the_terminal_usable(tmp_path, how):
    options = {"fail_at": 3} if how == "exception" else {"interrupt_on": "iter 2/20"}
    status, written = run_on_terminal(tmp_path, seconds=0.3, **options)
    assert status != 0
    # The cursor is visible, and the last thing on the screen is a whole line.
    assert written.rfind("\x1b[?25h") > written.rfind("\x1b[?25l")
    rows = screen(written)
    assert rows[-1] == ""
    assert any(("out of memory" if how == "exception" else "KeyboardInterrupt") in row for row in rows)
    assert sum(row.startswith("train") for row in rows) == 1


def test_a_killed_run_has_not_hidden_the_cursor(tmp_path):
    parent, child = pty.openpty()
    process = subprocess.Popen(**command(tmp_path, seconds=0.3), stdin=child, stdout=child, stderr=child)
    os.close(child)
    written = b""
    while b"iter 2/20" not in written:
        written += os.read(parent, 65536)
    process.kill()
    process.wait(60)
    os.close(parent)
    assert written.rfind(b"\x1b[?25h") > written.rfind(b"\x1b[?25l")


@pytest.mark.parametrize(
    ("metrics", "text"),
    [
        ({"coco/bbox_mAP": 0.5, "coco/bbox_mAP_50": 0.75, "data_time": 1.0}, "bbox_mAP 0.500"),
        ({"accuracy/top1": 71.25, "accuracy/top5": 90.0}, "top1 71.250"),
        ({"name": "x"}, ""),
        ({}, ""),
    ],
)
def test_the_headline_is_the_map_or_else_the_first_number(metrics, text):
    assert _headline(metrics) == text


@pytest.mark.parametrize("interval", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("begin", [1, 4, 30])
@pytest.mark.parametrize("past", [0, 1, 6, 11, 12])
def test_validations_left_are_those_the_loop_makes(interval, begin, past):
    from mmengine.runner import EpochBasedTrainLoop

    end = 12
    loop = object.__new__(EpochBasedTrainLoop)
    runner = SimpleNamespace(
        val_loop=object(), train_loop=loop, epoch=past, max_epochs=end, val_interval=interval, val_begin=begin
    )
    # The condition of EpochBasedTrainLoop.run.
    made = [e for e in range(past + 1, end + 1) if e >= begin and (e % interval == 0 or e == end)]
    assert _validations_left(runner) == len(made)


def test_the_hook_refuses_a_wrong_interval():
    with pytest.raises(ValueError, match="seconds must be positive, got 0"):
        ProgressHook(seconds=0)
