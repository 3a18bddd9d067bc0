"""A training that is killed and resumed draws what it would have drawn, by epochs and by iterations."""

import random
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("mmengine")
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel

from mmgn.engine.training import train

STATES = {"type": "RandomStatesHook"}
EMA = {"type": "EMAHook", "momentum": 0.1}


class Noise(torch.utils.data.Dataset):
    """Numbers that are augmented; counts those that are loaded in this process."""

    loaded = 0

    def __len__(self):
        return 8

    def __getitem__(self, index):
        Noise.loaded += 1
        return {"inputs": torch.tensor([index + random.random() + np.random.rand() + float(torch.rand(()))])}


class Dropping(BaseModel):
    """Draws from each generator in a step."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 16)
        self.norm = torch.nn.BatchNorm1d(16)

    def forward(self, inputs, mode):
        y = self.norm(self.layer(torch.stack(list(inputs)) / 8))
        if mode == "predict":
            # One that draws in validation.
            torch.rand(3), random.random()
            return [{"y": value} for value in y]
        return {"loss": torch.nn.functional.dropout(y, 0.5).square().mean() * (1 + random.random() + np.random.rand())}


class Killed(Exception):
    pass


class Kill(Hook):
    def __init__(self, iteration):
        self.iteration = iteration

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.iteration:
            raise Killed


LOOPS = {
    "epochs": ({"type": "ResumableEpochLoop", "max_epochs": 3}, {"interval": 3, "by_epoch": False}),
    "iterations": (
        {"type": "ResumableIterLoop", "max_iters": 12, "val_interval": 3},
        {"interval": 5, "by_epoch": False},
    ),
}


@pytest.fixture
def build(tmp_path, build_runner):
    def build(name, loop="epochs", kill=None, workers=0, hooks=(STATES, EMA), **more):
        loop, checkpoint = LOOPS[loop]
        torch.manual_seed(0)
        loader = {"batch_size": 2, "num_workers": workers, "persistent_workers": workers > 0, "dataset": Noise()}
        sampler = "DefaultSampler" if loop["type"] == "ResumableEpochLoop" else "InfiniteSampler"
        settings = {
            "train_cfg": dict(loop),
            "train_dataloader": loader | {"sampler": {"type": sampler, "shuffle": True}},
            "checkpoint": checkpoint,
            "model": Dropping(),
            "scores": range(9),
            "hooks": [*hooks, *([Kill(kill)] if kill else [])],
        }
        return build_runner.func(tmp_path / name, **(settings | more))

    return build


def finish(build, **more):
    """Train, end as a kill does, go on; returns what is left at the end."""
    kill = more.pop("kill", None)
    if kill:
        with pytest.raises(Killed):
            train(build("run", kill=kill, **more))
        # Other numbers than in the process that was killed.
        random.seed(), np.random.seed(), torch.seed()
    runner = build("run" if kill else "whole", resume=bool(kill), **more)
    train(runner)
    ema = next(hook for hook in runner.hooks if type(hook).__name__ == "EMAHook").ema_model
    optimizer = runner.optim_wrapper.optimizer.state_dict()["state"]
    return [
        *runner.model.state_dict().values(),
        *ema.state_dict().values(),
        *(s["momentum_buffer"] for s in optimizer.values()),
    ]


def same(one, other):
    return all(a.equal(b) for a, b in zip(one, other, strict=True))


# Between two epochs or validations, and within.
@pytest.mark.parametrize(
    ("loop", "kill", "workers"), [("epochs", 4, 0), ("epochs", 7, 2), ("iterations", 7, 2), ("iterations", 11, 0)]
)
def test_a_training_goes_on_with_the_same_bits(build, loop, kill, workers):
    whole = finish(build, loop=loop)
    assert same(whole, finish(build, loop=loop, kill=kill, workers=workers))


def test_a_training_goes_on_with_other_bits_without_the_hook(build):
    assert not same(finish(build), finish(build, kill=7, hooks=[EMA]))


def test_iterations_that_are_trained_are_not_loaded_again(build):
    with pytest.raises(Killed):
        train(build("run", "iterations", kill=11))
    Noise.loaded = 0
    train(build("run", "iterations", resume=True))
    # Resumed after ten iterations of twelve.
    assert Noise.loaded == 2 * 2


def test_accumulated_gradients_and_a_loss_scale_go_on(build):
    scaled = {"type": "DeviceAmpOptimWrapper", "dtype": "bfloat16", "loss_scale": "dynamic"}
    wrapper = scaled | {"optimizer": {"type": "SGD", "lr": 0.1, "momentum": 0.9}, "accumulative_counts": 3}
    assert same(finish(build, optim_wrapper=wrapper), finish(build, optim_wrapper=wrapper, kill=8))


@pytest.mark.parametrize(("states", "said"), [([], "it has none"), ([{}, {}], "it has those of 2")])
def test_states_that_do_not_fit_are_told_once_and_training_goes_on(build, states, said, monkeypatch):
    first = build("run", kill=7)
    monkeypatch.setattr("mmgn.engine.random_states.of_all_ranks", lambda: states)
    with pytest.raises(Killed):
        train(first)
    second = build("run", resume=True, log_level="WARNING")
    told = []
    monkeypatch.setattr(second.logger, "warning", told.append)
    train(second)
    assert second.iter == 12
    assert [text for text in told if "random states" in text] == [
        f"the checkpoint has no random states for 1 processes, {said}: training goes on with other random numbers than "
        "it would have drawn"
    ]


def test_checkpoints_load_weights_only_and_have_them(build):
    runner = build("run")
    train(runner)
    for path in Path(runner.work_dir).glob("iter_*.pth"):
        (states,) = torch.load(path, weights_only=True)["meta"]["random_states"]
        assert states["torch"].dtype == torch.uint8
        assert len(states["numpy"][1]) == 624
