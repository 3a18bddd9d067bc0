"""tools/train.py and tools/test.py on a handful of digits."""

import json

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
    status, output = run_tool(cwd, "train.py", CONFIG, *QUICK, "train_cfg.max_epochs=1")
    assert status == 0, output
    return cwd


def work_dir(cwd):
    return cwd / "work_dirs/mask-rcnn_r18-mini_fpn_fusedgn-all_digits"


def test_work_dir_has_mmdets_default_name(trained):
    assert (work_dir(trained) / "epoch_1.pth").is_file()
    assert (work_dir(trained) / "last_checkpoint").read_text().endswith("epoch_1.pth")


def test_resumes_with_optimizer_and_schedule(trained, run_tool):
    status, output = run_tool(trained, "train.py", CONFIG, "--resume", *QUICK, "train_cfg.max_epochs=2")
    assert status == 0, output
    assert "resumed epoch: 1, iter: 2" in output
    assert "coco/segm_mAP" in output
    states = [
        torch.load(work_dir(trained) / f"epoch_{epoch}.pth", map_location="cpu", weights_only=True) for epoch in (1, 2)
    ]
    steps = [max(s["step"].item() for s in c["optimizer"]["state"].values()) for c in states]
    assert steps == [2, 4]
    record = json.loads((work_dir(trained) / "run.json").read_text())
    assert record["train"]["epoch"] == 2
    rates = [s["param_groups"][0]["lr"] for s in (c["optimizer"] for c in states)]
    # The cosine ends with the second epoch.
    assert rates[1] < rates[0]


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
        ([CONFIG, "--auto-scale-lr"], ["auto_scale_lr=dict(base_batch_size=...)"]),
    ],
    ids=["no config", "misspelt config", "no data", "no truth", "no base batch"],
)
def test_wrong_arguments_end_in_one_paragraph(trained, run_tool, args, said):
    status, output = run_tool(trained, "train.py", *args)
    assert status != 0
    assert "Traceback" not in output
    for text in said:
        assert text in output


def test_an_empty_image_folder_is_told(trained, run_tool):
    (trained / "empty").mkdir(exist_ok=True)
    (trained / "empty/README.txt").write_text("images to come")
    option = f"train_dataloader.dataset.data_prefix.img={trained / 'empty'}/"
    status, output = run_tool(trained, "train.py", CONFIG, "--cfg-options", option)
    assert status != 0
    assert "Traceback" not in output
    assert "has no images" in output
    assert "train_dataloader.dataset.data_prefix.img" in output


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
