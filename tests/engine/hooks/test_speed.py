import json
from typing import ClassVar

import pytest

pytest.importorskip("mmengine")
import torch
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.runner import Runner

from mmgn.engine import SpeedHook
from mmgn.engine.hooks import speed


class Clock:
    """Stands still unless somebody works, so that what is in a time can be told exactly."""

    now = 0.0


class Model(BaseModel):
    """Takes 2 s an image, 3 s now and then; 100 s in its first calls, as if it compiled."""

    calls: ClassVar[list[int]] = []

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, inputs, mode):
        size = len(inputs)
        self.calls.append(size)
        Clock.now += 100 if len(self.calls) < 6 else size * (3 if len(self.calls) % 3 == 0 else 2)
        return [{}] * size


class Images(BaseDataset):
    """Seven images that take 10 s to load."""

    def load_data_list(self):
        return [{"img_id": i} for i in range(7)]

    def __getitem__(self, index):
        Clock.now += 10
        return {"inputs": torch.ones(1)}


class Count(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.append(len(data_samples))

    def compute_metrics(self, results):
        return {"images": sum(results)}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Test with the hook; returns what run.json has of it, and the log."""
    monkeypatch.setattr(speed.time, "perf_counter", lambda: Clock.now)

    def run(**options):
        Model.calls = []
        folder = tmp_path / str(options)
        runner = Runner(
            Model(),
            str(folder),
            test_dataloader=dict(
                dataset=Images(),
                batch_size=7,
                num_workers=0,
                sampler=dict(type="DefaultSampler", shuffle=False),
                collate_fn=dict(type="pseudo_collate"),
            ),
            test_cfg=dict(),
            test_evaluator=[Count()],
            custom_hooks=[dict(type="RunRecordHook"), dict(type="SpeedHook", **options)],
            experiment_name=folder.name,
            default_scope="mmengine",
        )
        runner.test()
        log = next(folder.glob("*/*.log")).read_text()
        return json.loads((folder / "run.json").read_text())["evaluation"], log

    return run


def test_warm_up_and_loading_are_not_in_it(run):
    evaluation, log = run(batch_size=2, warm_up=4)
    # One batch of the test, four of warm-up, three full ones counted: the sixth call, the seventh and the eighth.
    assert Model.calls == [7] + 7 * [2]
    speed = evaluation["speed"]
    assert evaluation["ms_per_image"] == 2000
    assert speed["ms_per_image_quartiles"] == [2000, 2500]
    assert speed["images_per_second"] == pytest.approx(6 / 14)
    assert (speed["batch_size"], speed["num_images"], speed["warm_up_batches"]) == (2, 6, 4)
    assert evaluation["metrics"] == {"images": 7}
    assert "2000 ms/image, the median of 6 images in batches of 2 after 4 batches of warm-up" in log
    assert evaluation["device"] in log
    assert speed["includes"] in log


def test_few_images_are_asked_for_and_few_are_there(run):
    assert run(num_images=3, warm_up=1)[0]["speed"]["num_images"] == 3
    assert Model.calls == [7, 1, 1, 1, 1]
    speed = run(batch_size=64, warm_up=1)[0]["speed"]
    assert (speed["batch_size"], speed["num_images"]) == (7, 7)


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"num_images": 0}, {"warm_up": 0}])
def test_none_of_it_may_be_nothing(options):
    with pytest.raises(ValueError, match="must be at least 1, got"):
        SpeedHook(**options)
