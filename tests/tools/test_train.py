"""tools/train.py and tools/test.py on a handful of digits."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from mmgn.datasets.digits import make_digits

CONFIG = "digits/mask-rcnn_r18-mini_fpn_fusedgn-all_digits.py"
# What makes one epoch a matter of seconds.
QUICK = ["--cfg-options", "train_cfg.val_interval=2", "param_scheduler.1.end=2", "default_hooks.logger.interval=1"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, run_tool):
    """A folder with data/digits, and work_dirs/<config name> after the first of two epochs."""
    cwd = tmp_path_factory.mktemp("train")
    make_digits(cwd / "data/digits", num_train=8, num_val=4)
    options = [*QUICK, "train_cfg.max_epochs=1"]
    status, output = run_tool(cwd, "train.py", CONFIG, "--val-loss", "--tensorboard", *options)
    assert status == 0, output
    return cwd


def work_dir(cwd):
    return cwd / "work_dirs/mask-rcnn_r18-mini_fpn_fusedgn-all_digits"


def test_work_dir_has_mmdets_default_name(trained):
    assert (work_dir(trained) / "epoch_1.pth").is_file()
    assert (work_dir(trained) / "last_checkpoint").read_text().endswith("epoch_1.pth")


def test_resumes_with_optimizer_and_schedule(trained, run_tool):
    status, output = run_tool(trained, "train.py", CONFIG, "--resume", "--val-loss", *QUICK, "train_cfg.max_epochs=2")
    assert status == 0, output
    # The console has the progress, the file all the rest.
    assert "train 100%" in output
    assert "  memory " in output
    logs = sorted(work_dir(trained).glob("*/*.log"))
    assert len(logs) == 2
    assert "resumed epoch: 1, iter: 2" in logs[1].read_text()
    assert "coco/segm_mAP" in logs[1].read_text()
    states = [
        torch.load(work_dir(trained) / f"epoch_{epoch}.pth", map_location="cpu", weights_only=True) for epoch in (1, 2)
    ]
    steps = [max(s["step"].item() for s in c["optimizer"]["state"].values()) for c in states]
    assert steps == [2, 4]
    record = json.loads((work_dir(trained) / "run.json").read_text())
    assert record["train"]["epoch"] == 2
    assert record["train"]["seed"] == states[0]["meta"]["seed"]
    rates = [s["param_groups"][0]["lr"] for s in (c["optimizer"] for c in states)]
    # The cosine ends with the second epoch.
    assert rates[1] < rates[0]


def test_results_best_and_tensorboard_are_there(trained):
    with (work_dir(trained) / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["epoch"], row["iter"]) for row in rows] == [("1", "2"), ("2", "4")]
    for row in rows:
        assert all(
            float(row[key]) > 0 for key in ("lr", "loss", "loss_mask", "val_loss", "val_loss_mask", "s_per_iter")
        )
        assert 0 <= float(row["coco/segm_mAP"]) <= 1
    assert [path.name[:20] for path in work_dir(trained).glob("best_*")] == ["best_coco_segm_mAP_e"]
    (events,) = work_dir(trained).glob("*/vis_data/events.*")
    assert b"val_loss" in events.read_bytes()


def test_a_report_with_figures_follows_from_training_alone(trained, run_tool):
    status, output = run_tool(trained, "report.py", work_dir(trained))
    assert status == 0, output
    metrics = json.loads((work_dir(trained) / "report/metrics.json").read_text())
    assert metrics["bbox_mAP"] is not None
    assert metrics["segm_mAP"] is not None
    assert len(metrics["per_class"]) == 10
    assert metrics["train_seconds"] > 0


def test_evaluates_a_checkpoint_and_dumps_predictions(trained, run_tool):
    checkpoint = work_dir(trained) / "epoch_1.pth"
    status, output = run_tool(
        trained, "test.py", CONFIG, checkpoint, "--work-dir", "evaluated", "--out", "predictions.pkl"
    )
    assert status == 0, output
    assert "coco/bbox_mAP" in output
    assert (trained / "predictions.pkl").stat().st_size > 0
    status, output = run_tool(trained, "test.py", CONFIG, checkpoint, "--out", "predictions.json")
    assert status == 2
    assert "--out takes a .pkl or .pickle file, got 'predictions.json'" in output


def test_a_dry_run_tells_memory_and_leaves_nothing(trained, run_tool, tmp_path):
    (tmp_path / "data").symlink_to(trained / "data")
    flags = ["--dry-run", "--batch-size", "2", "--accumulate", "2", "--amp-dtype", "bf16", "--grad-checkpoint"]
    # In a process of its own: what one has given back before, it takes again without growing.
    status, output = run_tool(tmp_path, "train.py", CONFIG, *flags)
    assert status == 0, output
    lines = {line.partition(" ")[0]: line.partition(" ")[2].strip() for line in output.splitlines() if line}
    assert lines["batch"] == "2 images x 1 process x 2 accumulated = 4 an update; lr 0.001 after warm-up"
    assert lines["update"].startswith("4 images, ")
    assert lines["data"] == "8 images; 4 iterations are an epoch, 16 in all"
    weights = torch.load(work_dir(trained) / "epoch_1.pth", weights_only=True)["state_dict"].values()
    size = sum(w.numel() * w.element_size() for w in weights) / 2**20
    assert lines["parameters"].startswith(f"{size:.1f} MiB")
    # AdamW has two of each.
    assert lines["optimizer"] == f"{2 * size:.1f} MiB"
    assert float(lines["activations"].split()[0]) > 1
    # The digits' images are all of one size.
    peak, estimate = (float(lines[key].split()[0]) for key in ("peak", "estimate"))
    assert estimate == pytest.approx(peak + 2 * size, abs=2)
    assert "loss_mask " in lines["losses"]
    assert "36 FusedGN" in output
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.fixture
def deterministic(monkeypatch):
    """Takes back what --deterministic does to the process."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False


def test_all_flags_together(trained, call_tool, deterministic):
    flags = ["--amp-dtype", "bf16", "--channels-last", "--compile", "aot_eager", "--seed", "1", "--deterministic"]
    flags += ["--batch-size", "4", "--accumulate", "2", "--grad-checkpoint", "--work-dir", "flags"]
    options = ["train_cfg.max_epochs=1", "train_cfg.val_begin=9", "param_scheduler.1.end=2"]
    options += ["train_dataloader.dataset.pipeline.2.scale=(64,64)"]
    options += ["train_dataloader.num_workers=0", "train_dataloader.persistent_workers=False"]
    status, output = call_tool(trained, "train.py", CONFIG, *flags, *QUICK[:1], *options)
    assert status == 0, output
    checkpoint = torch.load(trained / "flags/epoch_1.pth", weights_only=True)
    assert checkpoint["meta"]["seed"] == 1
    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    # One update of two iterations.
    assert {float(state["step"]) for state in checkpoint["optimizer"]["state"].values()} == {1.0}
    # What was compiled, fused and in another format has the same keys.
    plain = torch.load(work_dir(trained) / "epoch_1.pth", weights_only=True)["state_dict"]
    assert list(checkpoint["state_dict"]) == list(plain)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["no/such_config.py"], ["'no/such_config.py' does not exist"]),
        (["mask-rcnn_r18-mini_fpn_fusedgn_digits.py"], ["close names here", CONFIG]),
        (
            [CONFIG, "--cfg-options", "train_dataloader.dataset.data_root=nowhere/"],
            ["nowhere/annotations/instances_train.json", "train_dataloader.dataset.ann_file", "data_root=..."],
        ),
        (
            [CONFIG, "--cfg-options", "val_evaluator.ann_file=nowhere.json"],
            ["'nowhere.json' (val_evaluator.ann_file) does not exist", "--cfg-options val_evaluator.ann_file=..."],
        ),
        (
            [CONFIG, "--auto-scale-lr", "--cfg-options", "auto_scale_lr=None"],
            ["auto_scale_lr=dict(base_batch_size=...)"],
        ),
        ([CONFIG, "--compile", "turbo", "--work-dir", "w"], ["no backend 'turbo' of torch.compile here", "inductor"]),
        ([CONFIG, "--resume", "no.pth", "--work-dir", "w"], ["no checkpoint file", "no.pth"]),
    ],
    ids=["no config", "misspelt config", "no data", "no truth", "no base batch", "no backend", "no checkpoint"],
)
def test_wrong_arguments_end_in_one_paragraph(trained, call_tool, args, said):
    status, output = call_tool(trained, "train.py", *args)
    assert status != 0
    for text in said:
        assert text in output


def test_an_empty_image_folder_is_told(trained, call_tool):
    (trained / "empty").mkdir(exist_ok=True)
    (trained / "empty/README.txt").write_text("images to come")
    option = f"train_dataloader.dataset.data_prefix.img={trained / 'empty'}/"
    status, output = call_tool(trained, "train.py", CONFIG, "--cfg-options", option)
    assert status != 0
    assert "has no images" in output
    assert "train_dataloader.dataset.data_prefix.img" in output


def test_ctrl_c_leaves_a_checkpoint_and_images_that_are_gone_leave_it_alone(tmp_path, run_tool):
    make_digits(tmp_path / "data/digits", num_train=4, num_val=1)
    command = ["train.py", CONFIG, "--work-dir", "work", "--resume", "--cfg-options", "train_cfg.max_epochs=500"]
    tool = os.path.join(os.path.dirname(__file__), "../../tools", command[0])
    with (tmp_path / "output").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, tool, *command[1:], "default_hooks.logger.interval=1"],
            cwd=tmp_path,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        scalars = iter(lambda: list((tmp_path / "work").glob("*/vis_data/scalars.json")), None)
        while not any(path.stat().st_size for path in next(scalars)):
            assert process.poll() is None, (tmp_path / "output").read_text()
            time.sleep(0.1)
        # As a terminal does: to all of the group, data loading workers too.
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(200) == 130
    finally:
        process.kill()
    said = (tmp_path / "output").read_text()
    checkpoint = tmp_path / "work/interrupted.pth"
    assert "SIGINT: saving after this iteration or validation; again to quit at once" in said
    assert f"train.py: ended by SIGINT. The same command with --resume goes on from {checkpoint}." in said
    assert "Traceback" not in said
    before = checkpoint.read_bytes()

    # One stays, and no pre-flight, or it would be told before training.
    for image in sorted((tmp_path / "data/digits/train").iterdir())[1:]:
        image.unlink()
    command.insert(2, "--skip-preflight")
    status, said = run_tool(tmp_path, *command, timeout=300)
    assert status == 1
    assert "Traceback" not in said
    assert "is gone: [Errno 2] No such file or directory: 'data/digits/train/" in said
    assert said.rstrip().endswith(f"The same command with --resume goes on from {checkpoint}.")
    assert checkpoint.read_bytes() == before


def test_a_truncated_checkpoint_is_told_and_left_alone(trained, run_tool):
    whole = (work_dir(trained) / "epoch_1.pth").read_bytes()
    cut = trained / "cut.pth"
    cut.write_bytes(whole[: len(whole) // 2])
    status, output = run_tool(trained, "test.py", CONFIG, cut)
    assert status != 0
    assert f"cannot load the checkpoint {cut} ({len(whole) // 2} bytes): it is truncated" in output
    assert cut.stat().st_size == len(whole) // 2
    status, output = run_tool(trained, "test.py", CONFIG, "no.pth")
    assert status != 0
    assert "no checkpoint file" in output
