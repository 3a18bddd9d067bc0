"""Losses, gradients and parameters of inf and NaN, in trainings of milliseconds."""

import copy
import math
import pickle
from pathlib import Path

import pytest

pytest.importorskip("mmengine")
import torch
from mmengine.hooks import EMAHook, Hook
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement
from torch import nn

from mmgn.compat import checkpoint
from mmgn.engine import nonfinite
from mmgn.engine.hooks.finite_loss import FiniteLossHook
from mmgn.engine.training import TrainingError, train


class Images(torch.utils.data.Dataset):
    """Eight batches of a pixel each; ``special`` images have another value."""

    def __init__(self, **special):
        self.special = {int(name[1:]): value for name, value in special.items()}

    def __len__(self):
        return 8

    def __getitem__(self, index):
        pixel = torch.tensor([self.special.get(index, 1.0 + index)])
        sample = BaseDataElement(metainfo={"img_id": 100 + index, "img_path": f"train/{index}.jpg"})
        return {"inputs": pixel, "data_samples": sample}


class Sqrt(nn.Module):
    def forward(self, x):
        return x.sqrt()


class Plain(BaseModel):
    """A stem, dropout, a root and a head, in the parts' usual order."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(1, 4)
        self.drop = nn.Dropout(0.5)
        self.root = Sqrt()
        self.head = nn.Linear(4, 1)
        self.drawn = []

    def forward(self, inputs, data_samples, mode):
        x = torch.stack(list(inputs))
        features = self.drop(self.stem(x.clamp(min=0.0)))
        self.drawn.append(features.detach().clone())
        # Below 0 it is NaN.
        x = self.root(x) * features
        return {"loss_fit": self.head(x).square().mean() * 1e-3, "acc": x.mean(), "loss_more": 1e-3 * x.mean()}


class Normed(Plain):
    """A BatchNorm of what the stem makes; a root of less than 0 comes after it. A mask holds -inf."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(1)
        self.register_buffer("mask", torch.tensor([-math.inf]))

    def forward(self, inputs, data_samples, mode):
        x = torch.stack(list(inputs))
        features = self.norm(self.stem(x).unsqueeze(1)).squeeze(1)
        return {"loss_fit": 1e-3 * (self.head(features) * self.root(x)).square().mean()}


class OwnStep(Plain):
    """Looks at its features first, then at its losses, their mode given by place."""

    def forward(self, inputs, data_samples, mode):
        return {"sizes": [4]} if mode == "tensor" else super().forward(inputs, data_samples, mode)

    def train_step(self, data, optim_wrapper):
        self(**data, mode="tensor")
        loss, terms = self.parse_losses(self(data["inputs"], data["data_samples"], "loss"))
        optim_wrapper.update_params(loss)
        return terms


class Ruin(Hook):
    """Makes one iteration's gradient of head.bias NaN, at a finite loss."""

    def __init__(self, iteration):
        self.iteration = iteration

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter + 1 == self.iteration:
            bias = runner.model.head.bias
            self.handle = bias.register_hook(lambda gradient: gradient * math.nan)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == self.iteration:
            self.handle.remove()


def build(build_runner, dataset=None, hooks=(), model=None, max_skipped=30, enabled=True, **more):
    settings = {
        "train_cfg": {"type": "ResumableEpochLoop", "max_epochs": 2},
        "default_hooks": {"checkpoint": {"type": "SafeCheckpointHook", "interval": 3, "by_epoch": False}},
        "train_dataloader": {
            "batch_size": 1,
            "num_workers": 0,
            "dataset": dataset or Images(),
            "sampler": {"type": "DefaultSampler", "shuffle": False},
        },
    }
    return build_runner(
        hooks=[*hooks, {"type": "FiniteLossHook", "max_skipped": max_skipped, "enabled": enabled}],
        model=model or Plain(),
        **(settings | more),
    )


def stopped(runner):
    with pytest.raises(TrainingError) as caught:
        train(runner)
    said = str(caught.value)
    assert "\n" not in said
    return said


def finite(runner):
    return all(bool(p.isfinite().all()) for p in runner.model.parameters())


def test_the_first_module_the_term_and_the_images_are_told_before_the_update(build_runner):
    runner = build(build_runner, Images(_4=-2.0))
    said = stopped(runner)
    assert said.startswith(
        "training has stopped after 4 iterations: the loss of iteration 5 is not finite: loss_fit is nan"
    )
    assert "The first module whose output is not finite is root (Sqrt), which was given float32 values up to 2." in said
    assert "Images of the batch: 104 (train/4.jpg)." in said
    assert "clip_grad" in said and "check_dataset" in said and "bf16" not in said
    assert said.endswith(f"The same command with --resume goes on from {runner.work_dir}/iter_3.pth.")
    assert finite(runner)
    # Once to train, once to look for the module: of the same random numbers.
    assert len(runner.model.drawn) == 6
    torch.testing.assert_close(runner.model.drawn[4], runner.model.drawn[5], rtol=0, atol=0)


@pytest.mark.parametrize("known", [True, False])
def test_a_compiled_part_is_looked_into_where_torch_can(build_runner, monkeypatch, known):
    if not known:
        monkeypatch.delattr(torch.compiler, "set_stance", raising=False)
    model = Plain()
    model.root = nn.Sequential(nn.Identity(), Sqrt())
    model.root.compile(backend="eager")
    said = stopped(build(build_runner, Images(_1=-2.0), model=model))
    if hasattr(torch.compiler, "set_stance"):
        assert "not finite is root.1 (Sqrt), " in said
    else:
        assert f"is not known, as running it again fails: torch {torch.__version__} cannot run compiled" in said


def test_a_compiled_train_step_is_looked_into(build_runner):
    said = stopped(build(build_runner, Images(_1=-2.0), cfg={"compile": {"backend": "eager"}}))
    assert "the loss of iteration 2 is not finite" in said and "not finite is root (Sqrt), " in said


def test_only_losses_are_looked_at(build_runner):
    said = stopped(build(build_runner, Images(_4=-2.0), model=OwnStep()))
    assert "the loss of iteration 5 is not finite" in said


def test_copies_of_the_model_are_not_looked_at(build_runner):
    class Copies(Hook):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            for copied in (copy.deepcopy(runner.model), pickle.loads(pickle.dumps(runner.model))):
                assert copied([torch.tensor([-2.0])], None, mode="loss")["loss_fit"].isnan()

    runner = build(build_runner, hooks=[Copies()])
    train(runner)
    assert runner.iter == 16


def test_it_can_be_left_out(build_runner):
    runner = build(build_runner, Images(_4=-2.0), enabled=False)
    train(runner)
    assert runner.iter == 16 and not finite(runner)


@pytest.mark.parametrize(
    ("meta", "said"),
    [
        ({"img_id": 7, "img_path": "a.jpg"}, ["7 (a.jpg)"]),
        # mmpretrain's, and mmseg's.
        ({"sample_idx": 7, "img_path": "a.jpg"}, ["7 (a.jpg)"]),
        ({"img_path": "a.jpg"}, ["a.jpg"]),
        ({"sample_idx": 0}, ["0"]),
        ({}, []),
    ],
)
def test_images_are_told_by_what_their_samples_hold(meta, said):
    assert nonfinite.images([BaseDataElement(metainfo=meta)]) == said


def test_images_that_are_not_finite_are_told_as_such(build_runner):
    said = stopped(build(build_runner, Images(_1=math.inf)))
    assert "The images themselves hold inf or NaN. Images of the batch: 101 (train/1.jpg)." in said
    assert "There is no checkpoint yet." in said


def test_parameters_of_an_update_before_are_told_with_the_losses_before(build_runner):
    runner = build(build_runner, hooks=[Ruin(5)])
    said = stopped(runner)
    assert "the loss of iteration 6 is not finite: loss_fit is nan (before: " in said
    assert "The parameters are not finite (head.bias), by the gradients of an update before" in said
    assert said.endswith(f"--resume goes on from {runner.work_dir}/iter_3.pth.")


@pytest.mark.parametrize("averaged", [False, True])
def test_parameters_that_are_not_finite_are_not_saved(build_runner, averaged):
    hooks = [Ruin(6), *([EMAHook()] if averaged else [])]
    runner = build(build_runner, hooks=hooks)
    said = stopped(runner)
    assert said.startswith(
        "training has stopped after 5 iterations: The parameters are not finite (head.bias), so no checkpoint is saved."
    )
    assert sorted(p.name for p in Path(runner.work_dir).glob("*.pth")) == ["iter_3.pth"]
    assert checkpoint.damage(f"{runner.work_dir}/iter_3.pth") is None


def test_statistics_that_are_not_finite_are_not_saved(build_runner):
    class RuinStatistics(Hook):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            if runner.iter + 1 == 5:
                runner.model.norm.running_var.fill_(math.inf)

    said = stopped(build(build_runner, hooks=[RuinStatistics()], model=Normed()))
    assert "The norms' running statistics are not finite (norm.running_var), so no checkpoint is saved." in said
    assert "--amp-dtype bf16" in said and said.endswith("iter_3.pth.")


def test_a_training_is_bit_for_bit_what_it_is_without_the_hook(build_runner):
    weights = []
    for watched in (True, False):
        torch.manual_seed(0)
        runner = build(build_runner)
        if not watched:
            runner._hooks = [hook for hook in runner.hooks if not isinstance(hook, FiniteLossHook)]
        train(runner)
        weights.append(runner.model.state_dict())
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def amp(dtype, **more):
    return {"type": "DeviceAmpOptimWrapper", "dtype": dtype, "optimizer": {"type": "SGD", "lr": 1e-4}} | more


@pytest.mark.parametrize("more", [{}, {"accumulative_counts": 2}])
def test_an_overflow_that_a_scaler_leaves_out_is_no_stop(build_runner, more):
    # The gradients overflow until the scale is low enough, then one has a loss of NaN.
    wrapper = amp("float16", loss_scale={"init_scale": 2.0**20, "growth_interval": 10**6}, **more)
    runner = build(build_runner, Images(_6=-2.0), optim_wrapper=wrapper)
    before = {name: p.detach().clone() for name, p in runner.model.named_parameters()}
    train(runner)
    assert runner.iter == 16 and finite(runner)
    assert runner.optim_wrapper.loss_scaler.get_scale() < 2.0**20
    assert any(not p.equal(before[name]) for name, p in runner.model.named_parameters())


def test_a_forward_that_ruins_statistics_is_no_overflow_to_leave_out(build_runner):
    # An image of 1e5 is inf in float16, before the norm; a root of NaN comes after it.
    images = Images(_2=-2.0, _4=1e5)
    said = stopped(build(build_runner, images, model=Normed(), optim_wrapper=amp("float16")))
    assert "the loss of iteration 5 is not finite: loss_fit is nan" in said
    assert "The first module whose output is not finite is stem (Linear)" in said
    assert "The norms' running statistics are not finite (norm.running_mean and 1 more) now" in said
    assert "Try --amp-dtype bf16, or no --amp." in said
    runner = build(build_runner, Images(_4=1e5), model=Normed(), optim_wrapper=amp("bfloat16"))
    train(runner)
    assert runner.iter == 16


def test_overflow_without_an_end_stops(build_runner):
    dataset = Images(**{f"_{index}": -2.0 for index in range(8)})
    said = stopped(build(build_runner, dataset, optim_wrapper=amp("float16"), max_skipped=5))
    assert said.startswith(
        "training has stopped after 4 iterations: the loss of iteration 5 is not finite: loss_fit is nan"
    )
    assert "root (Sqrt), which was given float16" in said or "root (Sqrt), which was given float32" in said
    assert "Try --amp-dtype bf16, or no --amp." in said


def test_gradients_that_are_never_finite_stop(build_runner):
    class Always(Ruin):
        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            pass

    runner = build(build_runner, hooks=[Always(1)], optim_wrapper=amp("float16"), max_skipped=5)
    before = [p.detach().clone() for p in runner.model.parameters()]
    said = stopped(runner)
    assert (
        "the gradients of the last 5 iterations with an update were not finite, and the loss scale is 2.05e+03" in said
    )
    assert all(p.equal(old) for p, old in zip(runner.model.parameters(), before, strict=True))


def test_without_a_scaler_autocast_stops_at_the_first(build_runner):
    said = stopped(build(build_runner, Images(_4=-2.0), optim_wrapper=amp("bfloat16")))
    assert "the loss of iteration 5 is not finite" in said and "root (Sqrt), " in said
