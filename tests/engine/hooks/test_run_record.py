import json
import shlex
import sys
import time
from typing import ClassVar

import pytest

pytest.importorskip("mmengine")
import torch
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner

from mmgn.engine.hooks.run_record import RunRecordHook

NAP = 0.05


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))
        self.norm = torch.nn.GroupNorm(2, 8)

    def forward(self, inputs, mode):
        if mode == "predict":
            return [{}] * len(inputs)
        time.sleep(NAP)
        return {"loss": self.scale.sum()}


class Images(BaseDataset):
    """Four images that need no file."""

    METAINFO: ClassVar = {"classes": ("cat", "dog")}

    def load_data_list(self):
        return [{"img_id": i} for i in range(4)]

    def __getitem__(self, index):
        return {"inputs": torch.ones(1)}


class Wrapper(torch.utils.data.Dataset):
    """Repeats a data set, and tells of it what mmengine's wrappers do."""

    def __init__(self, dataset):
        self.dataset, self.metainfo = dataset, dataset.metainfo

    def __len__(self):
        return 2 * len(self.dataset)

    def __getitem__(self, index):
        return self.dataset[index % 4]


class Count(BaseMetric):
    def __init__(self, outfile_prefix=None):
        super().__init__(prefix="coco")
        self.outfile_prefix = outfile_prefix

    def process(self, data_batch, data_samples):
        self.results += data_samples

    def compute_metrics(self, results):
        return {"bbox_mAP": 0.25, "nan": float("nan"), "name": "text"}


class Crash(Hook):
    priority = "LOWEST"

    def after_train_epoch(self, runner):
        raise RuntimeError("killed")


def loader(dataset):
    return {"dataset": dataset, "batch_size": 2, "sampler": {"type": "DefaultSampler", "shuffle": False}}


def images(tmp_path):
    return Images(data_root=str(tmp_path / "data"), ann_file="val.json", data_prefix={"img": "val/"}, lazy_init=True)


def build(tmp_path, *, epochs=2, train=True, metric=None, hooks=(), dataset=None, **more):
    # Every runner needs a name of its own in a process.
    settings = {
        "work_dir": str(tmp_path / "work"),
        "experiment_name": f"record{time.perf_counter_ns()}",
        "default_scope": "mmengine",
        "custom_hooks": [{"type": "RunRecordHook"}, *hooks],
        "randomness": {"seed": 3},
        "test_dataloader": loader(dataset or images(tmp_path)),
        "test_cfg": {},
        "test_evaluator": [metric or Count()],
    }
    if train:
        settings |= {
            "train_dataloader": loader(images(tmp_path)),
            "train_cfg": {"by_epoch": True, "max_epochs": epochs},
            "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.1}},
            "default_hooks": {"checkpoint": {"type": "CheckpointHook", "interval": 1}},
            "val_dataloader": loader(images(tmp_path)),
            "val_cfg": {},
            "val_evaluator": [Count()],
        }
    return Runner(Model(), **(settings | more))


def record(tmp_path):
    return json.loads((tmp_path / "work" / "run.json").read_text(), parse_constant=pytest.fail)


def test_training(tmp_path):
    began = time.perf_counter()
    build(tmp_path).train()
    took = time.perf_counter() - began
    train, evaluation = record(tmp_path)["train"], record(tmp_path)["evaluation"]
    assert 4 * NAP < train["seconds"] < took
    known = {"iter": 4, "max_iters": 4, "epoch": 2, "max_epochs": 2, "first_iter": 0, "seed": 3, "world_size": 1}
    assert {key: train[key] for key in known} == known
    assert train["started"] <= train["ended"] == train["saved"]
    assert train["versions"]["torch"] == torch.__version__
    assert train["command"] == evaluation["command"] == shlex.join(sys.argv)
    row = {"layers": "1", "where": "norm", "norm": "GN", "channels": "8", "groups": "2"}
    # A runner that was not built from a config has none to tell of decay.
    state = {"trains": "yes", "decays": "-", "statistics": "-"}
    assert train["norms"] == {"rows": [row | state], "warnings": []}
    # The weights were in memory.
    assert (evaluation["stage"], evaluation["checkpoint"], evaluation["iter"]) == ("val", None, 4)
    assert not list((tmp_path / "work").glob(".run.json*"))
    if not torch.cuda.is_available():
        assert train["peak_memory_kind"] == "process RSS"
        # torch alone takes more than this, and it is not in KiB or bytes.
        assert 50 < train["peak_memory_mb"] < 100_000
        assert train["device"].endswith(f"(CPU, {torch.get_num_threads()} threads)")


def test_killed_and_resumed_training_adds_up(tmp_path):
    with pytest.raises(RuntimeError, match="killed"):
        build(tmp_path, hooks=[Crash()]).train()
    killed = record(tmp_path)["train"]
    assert (killed["iter"], killed["epoch"], killed["ended"]) == (2, 1, None)
    assert killed["seconds"] > 2 * NAP
    build(tmp_path, resume=True).train()
    train = record(tmp_path)["train"]
    assert (train["iter"], train["first_iter"], train["started"]) == (4, 0, killed["started"])
    assert train["ended"]
    assert train["seconds"] > killed["seconds"] + 2 * NAP


def test_resumed_elsewhere_says_where_counting_began(tmp_path):
    build(tmp_path, epochs=1).train()
    checkpoint = tmp_path / "work" / "epoch_1.pth"
    build(tmp_path, resume=True, load_from=str(checkpoint), work_dir=str(tmp_path / "other")).train()
    train = json.loads((tmp_path / "other" / "run.json").read_text())["train"]
    assert (train["first_iter"], train["iter"]) == (2, 4)


def test_training_from_scratch_starts_a_new_record(tmp_path):
    build(tmp_path).train()
    before = record(tmp_path)
    before["train"]["seconds"] = 1e6
    (tmp_path / "work" / "run.json").write_text(json.dumps(before))
    build(tmp_path, val_dataloader=None, val_cfg=None, val_evaluator=None).train()
    assert list(record(tmp_path)) == ["train"]
    assert record(tmp_path)["train"]["seconds"] < 1e5


def test_damaged_record_does_not_stop_a_training(tmp_path):
    build(tmp_path, epochs=1).train()
    (tmp_path / "work" / "run.json").write_text("{")
    build(tmp_path, resume=True).train()
    assert record(tmp_path)["train"]["first_iter"] == 2


def test_test_of_a_checkpoint_keeps_the_training(tmp_path):
    build(tmp_path).train()
    train = record(tmp_path)["train"]
    metric = Count(outfile_prefix=str(tmp_path / "work" / "out" / "results"))
    checkpoint = str(tmp_path / "work" / "epoch_2.pth")
    build(tmp_path, train=False, metric=metric, load_from=checkpoint).test()
    assert record(tmp_path)["train"] == train
    evaluation = record(tmp_path)["evaluation"]
    known = {
        "stage": "test",
        "checkpoint": "epoch_2.pth",
        "iter": None,
        "results_prefix": "out/results",
        "ann_file": str(tmp_path / "data" / "val.json"),
        "img_dir": str(tmp_path / "data" / "val"),
        "num_images": 4,
        "classes": ["cat", "dog"],
        "metrics": {"coco/bbox_mAP": 0.25, "coco/nan": None},
    }
    assert {key: evaluation[key] for key in known} == known


def test_training_by_iterations_is_saved_with_its_checkpoints(tmp_path):
    seen = []

    class Look(Hook):
        priority = "LOWEST"

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            seen.append(record(tmp_path)["train"]["seconds"])

    checkpoint = {"type": "CheckpointHook", "by_epoch": False, "interval": 2}
    build(
        tmp_path,
        hooks=[Look()],
        train_cfg={"by_epoch": False, "max_iters": 6, "val_interval": 100},
        default_hooks={"checkpoint": checkpoint},
    ).train()
    # Saved after the 2nd and the 4th of six iterations.
    assert seen[0] < seen[1] == seen[2] < seen[3] == seen[4] < seen[5]
    assert seen[1] > 2 * NAP
    train = record(tmp_path)["train"]
    assert (train["iter"], train["epoch"], train["max_epochs"]) == (6, None, None)


def test_what_is_not_told_is_null(tmp_path):
    class Bare(torch.utils.data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return {"inputs": torch.ones(1)}

    build(tmp_path, train=False, dataset=Bare()).test()
    evaluation = record(tmp_path)["evaluation"]
    unknown = ("ann_file", "img_dir", "classes", "results_prefix", "checkpoint", "iter", "config", "model")
    assert {key: evaluation[key] for key in unknown} == dict.fromkeys(unknown)
    assert evaluation["num_images"] == 4


def test_wrapped_data_set(tmp_path):
    build(tmp_path, train=False, dataset=Wrapper(images(tmp_path))).test()
    evaluation = record(tmp_path)["evaluation"]
    assert evaluation["ann_file"] == str(tmp_path / "data" / "val.json")
    assert (evaluation["num_images"], evaluation["classes"]) == (8, ["cat", "dog"])


def test_other_ranks_write_nothing(tmp_path, monkeypatch):
    runner = build(tmp_path, train=False)
    monkeypatch.setattr("mmengine.dist.utils.get_rank", lambda group=None: 1)
    hook = RunRecordHook()
    hook.before_run(runner)
    hook.before_test(runner)
    hook.after_test_epoch(runner, {})
    assert not (tmp_path / "work" / "run.json").exists()


def test_peak_outlives_the_loggers_resets_and_a_resumption(tmp_path, monkeypatch):
    # As max_memory_allocated goes when it is reset after every iteration; two training and two validation
    # iterations an epoch.
    peaks = iter([100.0, 300.0, 20.0, 20.0, 90.0, 80.0, 20.0, 20.0])
    monkeypatch.setattr("mmgn.engine.hooks.run_record.peak_memory_mb", lambda device: next(peaks))
    build(tmp_path, epochs=1).train()
    assert record(tmp_path)["train"]["peak_memory_mb"] == 300
    build(tmp_path, resume=True).train()
    assert record(tmp_path)["train"]["peak_memory_mb"] == 300
    assert next(peaks, None) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_memory_is_the_peak_whatever_the_logger_resets(tmp_path):
    class Hungry(Model):
        def forward(self, inputs, mode):
            if mode == "loss" and not self.fed:
                torch.empty(2**28, dtype=torch.uint8, device="cuda")
                self.fed = True
            return super().forward(inputs, mode)

    model = Hungry()
    model.fed = False
    runner = build(tmp_path, default_hooks={"logger": {"type": "LoggerHook", "interval": 1}})
    runner.model = model.cuda()
    runner.train()
    train = record(tmp_path)["train"]
    assert train["peak_memory_kind"] == "CUDA allocated"
    assert 256 <= train["peak_memory_mb"] < 300
