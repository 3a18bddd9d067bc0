"""The linear rule, and a budget and a schedule that are the same over images."""

import itertools

import numpy as np
import pytest

pytest.importorskip("mmdet")

from mmengine.config import Config
from torch.utils.data import Sampler

from mmgn.study.schedule import fit


def by_epochs(**changes):
    """A config for 64 images an iteration, of 10 epochs of 640 images."""
    return Config(
        dict(
            train_dataloader=dict(batch_size=64, sampler=dict(type="DefaultSampler")),
            train_cfg=dict(by_epoch=True, max_epochs=10, val_interval=1),
            optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.2)),
            auto_scale_lr=dict(enable=True, base_batch_size=64),
            param_scheduler=[
                dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=20),
                dict(type="MultiStepLR", by_epoch=True, begin=0, end=10, milestones=[6, 9]),
            ],
        )
        | changes
    )


def by_iterations():
    """A config for 16 images an iteration, of 80 iterations."""
    schedule = dict(type="PolyLR", eta_min=1e-4, power=0.9, begin=0, end=80, by_epoch=False)
    return by_epochs(
        train_dataloader=dict(batch_size=4, sampler=dict(type="InfiniteSampler")),
        train_cfg=dict(type="IterBasedTrainLoop", max_iters=80, val_interval=8),
        auto_scale_lr=dict(base_batch_size=16),
        param_scheduler=[schedule],
    )


@pytest.mark.parametrize(
    ("batch_size", "processes", "lr", "iterations", "warm_up"),
    [(64, 1, 0.2, 100, 20), (16, 1, 0.05, 400, 80), (1, 1, 0.003125, 6400, 1280), (32, 4, 0.4, 50, 10)],
)
def test_rate_and_warm_up_follow_the_batch(batch_size, processes, lr, iterations, warm_up):
    cfg = by_epochs()
    assert fit(cfg, batch_size, processes, 640) == iterations
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(lr)
    assert cfg.param_scheduler[0].end == warm_up
    # Epochs are as many images as before.
    assert cfg.param_scheduler[1].milestones == [6, 9]
    assert (cfg.train_cfg.max_epochs, cfg.train_cfg.val_interval) == (10, 10)
    # It is scaled by now, and must not be again.
    assert cfg.auto_scale_lr.enable is False
    assert (cfg.train_dataloader.batch_size, cfg.train_dataloader.drop_last) == (batch_size, True)


@pytest.mark.parametrize(("batch_size", "processes"), [(64, 1), (48, 1), (16, 3), (7, 4)])
def test_iterations_are_those_of_the_loader(batch_size, processes):
    from torch.utils.data import BatchSampler

    cfg = by_epochs()
    iterations = fit(cfg, batch_size, processes, 650)
    share = range(-(-650 // processes))
    assert iterations == 10 * len(BatchSampler(share, batch_size, drop_last=True))
    assert 10 * 650 - iterations * batch_size * processes < 10 * batch_size * processes


def test_epochs_stretch_the_schedule():
    cfg = by_epochs()
    assert fit(cfg, 64, 1, 640, epochs=5) == 50
    assert cfg.train_cfg.max_epochs == 5
    assert cfg.param_scheduler[0].end == 10
    assert (cfg.param_scheduler[1].end, cfg.param_scheduler[1].milestones) == (5, [3, 4])


def test_a_budget_in_iterations_is_kept_in_images():
    cfg = by_iterations()
    assert fit(cfg, 2, 2, 640) == 320
    assert (cfg.train_cfg.max_iters, cfg.train_cfg.val_interval) == (320, 320)
    assert cfg.param_scheduler[0].end == 320
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(0.05)
    # A rate of its own, which the optimizer's does not scale.
    assert cfg.param_scheduler[0].eta_min == pytest.approx(0.25e-4)
    cfg = by_iterations()
    assert fit(cfg, 16, 1, 640, epochs=1) == 40


class Shapes(Sampler):
    """Images of which some are landscapes: sampler and data set in one."""

    def __init__(self, landscape):
        self.landscape, self.dataset = landscape, self

    def __iter__(self):
        return iter(range(len(self.landscape)))

    def get_data_info(self, index):
        return {"width": 1 + self.landscape[index], "height": 1.5}


def test_processes_get_as_many_batches_whatever_their_images_shapes():
    from mmdet.datasets.samplers import AspectRatioBatchSampler

    draws = np.random.default_rng(0)
    for share, batch_size in itertools.product(range(1, 25), range(1, 9)):
        if share < batch_size:
            continue
        loader = dict(batch_size=64, sampler=dict(type="S"), batch_sampler=dict(type="AspectRatioBatchSampler"))
        cfg = by_epochs(train_dataloader=loader)
        iterations = fit(cfg, batch_size, 2, 2 * share, epochs=1)
        # The loader takes one of the two.
        assert "drop_last" not in cfg.train_dataloader
        drop_last = cfg.train_dataloader.batch_sampler.drop_last
        for _ in range(20):
            landscape = draws.random(share) < draws.random()
            sizes = [len(batch) for batch in AspectRatioBatchSampler(Shapes(landscape), batch_size, drop_last)]
            assert sizes == [batch_size] * iterations


def test_points_in_time_stay_above_zero():
    steps = [dict(type="StepLR", step_size=3, by_epoch=False), dict(type="CosineAnnealingLR", T_max=4, by_epoch=False)]
    cfg = by_epochs(param_scheduler=steps, auto_scale_lr=dict(base_batch_size=1))
    fit(cfg, 64, 1, 640)
    assert (cfg.param_scheduler[0].step_size, cfg.param_scheduler[1].T_max) == (1, 1)


def test_what_cannot_be_scaled_is_refused():
    with pytest.raises(ValueError, match="needs auto_scale_lr=dict"):
        fit(by_epochs(auto_scale_lr=None), 8, 1, 640)
    with pytest.raises(ValueError, match=r"no optim_wrapper\.optimizer\.lr"):
        fit(by_epochs(optim_wrapper=dict(optimizer=dict(type="SGD"))), 8, 1, 640)
    with pytest.raises(ValueError, match="a OneCycleLR, which cannot be fitted to another batch size"):
        fit(by_epochs(param_scheduler=dict(type="mmengine.OneCycleLR", eta_max=1, total_steps=100)), 8, 1, 640)
    with pytest.raises(ValueError, match="a batch of 400 x 2 is more than the 640 training images"):
        fit(by_epochs(), 400, 2, 640)
