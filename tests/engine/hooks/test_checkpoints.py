"""Checkpoints on a disk that fails, and data that go away, for real: a limit of the process, and removed files."""

import resource
from pathlib import Path

import pytest

pytest.importorskip("mmengine")
import torch
from mmengine.hooks import Hook

from mmgn.engine.files import WriteError, write_whole
from mmgn.engine.hooks.checkpoints import SafeCheckpointHook
from mmgn.engine.training import TrainingError, explain, train


class Full(Hook):
    """Lets no file of this process grow beyond some bytes, from an epoch on, as a full disk does."""

    def __init__(self, epoch, size):
        self.epoch, self.size = epoch, size

    def before_train_epoch(self, runner):
        if runner.epoch + 1 == self.epoch:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.limits[1]))

    def __enter__(self):
        self.limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        return self

    def __exit__(self, *exc):
        resource.setrlimit(resource.RLIMIT_FSIZE, self.limits)


def names(runner):
    # Beside them are the config and the logs.
    return sorted(p.name for p in Path(runner.work_dir).iterdir() if p.is_file() and p.suffix != ".py")


def iteration(path):
    return torch.load(path, weights_only=True)["meta"]["iter"]


@pytest.mark.parametrize("keep", [1, 3])
def test_a_full_disk_ends_training_in_one_sentence_and_leaves_the_checkpoint_before(build_runner, keep):
    keeping = {"max_keep_ckpts": keep, "save_best": "coco/segm_mAP", "rule": "greater"}
    with Full(epoch=2, size=2000) as full:
        runner = build_runner(hooks=[full], scores=[0.1, 0.2, 0.3], checkpoint=keeping)
        with pytest.raises(TrainingError) as caught:
            train(runner)
    first = f"{runner.work_dir}/epoch_1.pth"
    said = str(caught.value)
    assert said.startswith(
        f"training has stopped after 8 iterations: {runner.work_dir}/epoch_2.pth (0.0 MiB) cannot be "
    )
    assert " written: File too large; ulimit -f allows files of 0.0 MiB. " in said
    assert said.endswith(
        f"Free some room, or give another --work-dir. The same command with --resume goes on from {first}."
    )
    assert names(runner) == ["best_coco_segm_mAP_epoch_1.pth", "epoch_1.pth", "last_checkpoint"]
    assert Path(runner.work_dir, "last_checkpoint").read_text() == first
    assert iteration(first) == 4
    train(build_runner(resume=True, scores=[0.2, 0.3], checkpoint=keeping))
    assert iteration(f"{runner.work_dir}/epoch_3.pth") == 12


def test_the_best_is_kept_until_a_better_one_is_written(build_runner):
    class FullBeforeBest(Full):
        def before_val(self, runner):
            if runner.epoch == 2:
                resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.limits[1]))

    with FullBeforeBest(epoch=0, size=2000) as full:
        keeping = {"max_keep_ckpts": 1, "save_best": "coco/segm_mAP"}
        runner = build_runner(hooks=[full], scores=[0.1, 0.2], checkpoint=keeping)
        with pytest.raises(TrainingError, match=r"best_coco_segm_mAP_epoch_2\.pth"):
            train(runner)
    assert names(runner) == ["best_coco_segm_mAP_epoch_1.pth", "epoch_2.pth", "last_checkpoint"]
    assert iteration(f"{runner.work_dir}/epoch_2.pth") == 8


def test_the_last_are_kept_and_the_best_whenever_it_was(build_runner):
    keeping = {"max_keep_ckpts": 2, "save_best": "coco/segm_mAP"}
    runner = build_runner(epochs=5, scores=[0.1, 0.4, 0.3, 0.2, 0.3], checkpoint=keeping)
    train(runner)
    assert names(runner) == ["best_coco_segm_mAP_epoch_2.pth", "epoch_4.pth", "epoch_5.pth", "last_checkpoint"]


def test_a_validation_without_the_metric_chooses_no_best(build_runner):
    runner = build_runner(epochs=1, scores=[0.1], checkpoint={"save_best": "coco/bbox_mAP"})
    train(runner)
    assert names(runner) == ["epoch_1.pth", "last_checkpoint"]


class Files(torch.utils.data.Dataset):
    """Numbers, each in a file."""

    def __init__(self, folder):
        self.folder = folder
        for number in range(8):
            (folder / f"{number}.txt").write_text(str(number))

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return {"inputs": torch.tensor([float((self.folder / f"{index}.txt").read_text())])}


class Vanish(Hook):
    def before_train_epoch(self, runner):
        if runner.epoch == 1:
            for file in runner.train_dataloader.dataset.folder.iterdir():
                file.unlink()


@pytest.mark.parametrize("workers", [0, 1])
def test_data_that_vanish_are_named_and_the_checkpoint_before_stays(build_runner, tmp_path, workers):
    (tmp_path / "data").mkdir()
    runner = build_runner(hooks=[Vanish()], dataset=Files(tmp_path / "data"), workers=workers)
    with pytest.raises(TrainingError) as caught:
        train(runner)
    said = str(caught.value)
    assert "\n" not in said
    assert "a file of the data set, or of the work dir, is gone: [Errno 2] No such file or directory: " in said
    assert f"'{tmp_path}/data/" in said
    assert said.endswith(f"goes on from {runner.work_dir}/epoch_1.pth.")
    assert iteration(f"{runner.work_dir}/epoch_1.pth") == 4


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "--batch-size, --amp-dtype bf16"),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. "),
            "fewer train_dataloader.num_workers",
        ),
        (PermissionError(13, "Permission denied", "a.jpg"), "cannot be read or written: [Errno 13] Permission denied"),
        (ValueError("a bug"), None),
        (ConnectionResetError(104, "Connection reset by peer"), None),
    ],
)
def test_only_what_is_no_fault_of_the_program_is_explained(error, said):
    explained = explain(error)
    assert explained is None if said is None else said in explained


def test_a_file_is_whole_or_as_it_was(tmp_path):
    file = tmp_path / "file"
    write_whole(file, b"old")
    with Full(0, 2) as full, pytest.raises(WriteError, match="File too large"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (full.size, full.limits[1]))
        write_whole(file, b"newer")
    assert file.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_a_killed_process_had_no_time_to_remove_is_removed(build_runner, monkeypatch):
    keeping = {"max_keep_ckpts": 1, "save_best": "coco/segm_mAP"}

    class Killed(Exception):
        pass

    remove = SafeCheckpointHook._remove

    def end_before(kind):
        def removing(hook, path):
            if path and Path(path).name.startswith(kind):
                raise Killed
            remove(hook, path)

        monkeypatch.setattr(SafeCheckpointHook, "_remove", removing)

    end_before("epoch")
    runner = build_runner(scores=[0.1], checkpoint=keeping)
    with pytest.raises(Killed):
        train(runner)
    assert names(runner) == ["best_coco_segm_mAP_epoch_1.pth", "epoch_1.pth", "epoch_2.pth", "last_checkpoint"]
    end_before("best")
    with pytest.raises(Killed):
        train(build_runner(scores=[0.05, 0.2], checkpoint=keeping, resume=True))
    best = ["best_coco_segm_mAP_epoch_1.pth", "best_coco_segm_mAP_epoch_3.pth"]
    assert names(runner) == [*best, "epoch_3.pth", "last_checkpoint"]
    monkeypatch.undo()
    train(build_runner(scores=[], checkpoint=keeping, resume=True))
    assert names(runner) == [best[1], "epoch_3.pth", "last_checkpoint"]
