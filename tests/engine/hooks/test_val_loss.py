"""The loss on validation images: in the right frame, over all images, and without a trace in training."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("mmdet")
import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from mmgn.datasets.digits import make_digits
from mmgn.engine.config import load_config
from mmgn.engine.hooks.val_loss import ValLossHook, scale_truth

CONFIG = "digits/mask-rcnn_r18-mini_fpn_fusedgn-all_digits.py"


@pytest.fixture(scope="module")
def cfg(tmp_path_factory):
    """The digits config on 2 + 3 images, which it scales from 160 to 96 pixels."""
    root = make_digits(tmp_path_factory.mktemp("digits"), num_train=2, num_val=3).root
    cfg = load_config(CONFIG)
    cfg.val_evaluator.ann_file = str(root / "annotations/instances_val.json")
    for split in ("train", "val"):
        loader = cfg[f"{split}_dataloader"]
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        loader.dataset.data_root = f"{root}/"
        for step in loader.dataset.pipeline:
            if step["type"] == "Resize":
                step["scale"] = (96, 96)
    return cfg


@pytest.fixture(scope="module")
def model(cfg):
    init_default_scope("mmdet")
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    return model.eval()


def val_losses(model, dataset, batches):
    runner = SimpleNamespace(
        model=model,
        val_dataloader=SimpleNamespace(dataset=dataset),
        message_hub=MessageHub.get_instance("val_loss"),
    )
    hook, metrics = ValLossHook(), {}
    hook.before_val_epoch(runner)
    for number, indices in enumerate(batches):
        hook.after_val_iter(runner, number, pseudo_collate([dataset[i] for i in indices]))
    hook.after_val_epoch(runner, metrics)
    return metrics


def test_the_truth_is_scaled_as_mmdets_own_resize_does_it(cfg, model):
    init_default_scope("mmdet")
    after = DATASETS.build(cfg.val_dataloader.dataset)
    load, resize, annotate, pack = cfg.val_dataloader.dataset.pipeline
    before = DATASETS.build(dict(cfg.val_dataloader.dataset, pipeline=[load, annotate, resize, pack]))
    losses = [val_losses(model, dataset, [[0, 1], [2]]) for dataset in (after, before)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    names = {"val_loss", "val_loss_rpn_cls", "val_loss_rpn_bbox", "val_loss_cls", "val_loss_bbox", "val_loss_mask"}
    assert set(losses[0]) == names
    parts = sum(value for name, value in losses[0].items() if name != "val_loss")
    assert losses[0]["val_loss"] == pytest.approx(parts, rel=1e-6)
    # Against the frame of the original, the boxes would be another's.
    sample, want = after[0]["data_samples"], before[0]["data_samples"]
    assert not torch.equal(sample.gt_instances.bboxes.tensor, want.gt_instances.bboxes.tensor)
    scale_truth(sample)
    torch.testing.assert_close(sample.gt_instances.bboxes, want.gt_instances.bboxes.tensor)
    np.testing.assert_array_equal(sample.gt_instances.masks.masks, want.gt_instances.masks.masks)


def test_it_is_the_mean_over_images_and_draws_nothing_of_trainings(cfg, model):
    init_default_scope("mmdet")
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    torch.manual_seed(1)
    state = torch.get_rng_state(), np.random.get_state()[1].copy()
    # A batch draws by its number in the validation, so image 2 has one loss in both of the longer ones.
    two_and_one, one_and_one, two, one = (
        val_losses(model, dataset, batches) for batches in ([[0, 1], [2]], [[0], [2]], [[0, 1]], [[0]])
    )
    for name in two:
        second = 3 * two_and_one[name] - 2 * two[name]
        assert second == pytest.approx(2 * one_and_one[name] - one[name], rel=1e-4)
    assert torch.equal(state[0], torch.get_rng_state())
    np.testing.assert_array_equal(state[1], np.random.get_state()[1])


def test_a_segmentation_map_is_scaled_too(cfg):
    from mmdet.structures import DetDataSample
    from mmengine.structures import PixelData

    classes = torch.arange(4).reshape(1, 2, 2).repeat_interleave(4, 1).repeat_interleave(4, 2)
    sample = DetDataSample(metainfo={"scale_factor": (0.5, 0.25), "img_shape": (2, 4)})
    sample.gt_sem_seg = PixelData(sem_seg=classes)
    scale_truth(sample)
    assert sample.gt_sem_seg.sem_seg.tolist() == [[[0, 0, 1, 1], [2, 2, 3, 3]]]


def test_a_pipeline_without_truth_is_told(cfg, model):
    init_default_scope("mmdet")
    load, resize, _, pack = cfg.val_dataloader.dataset.pipeline
    dataset = DATASETS.build(dict(cfg.val_dataloader.dataset, pipeline=[load, resize, pack]))
    with pytest.raises(ValueError, match="the pipeline of val_dataloader loads none: add LoadAnnotations"):
        val_losses(model, dataset, [[0]])


class Keep(Hook):
    def __init__(self):
        self.losses, self.metrics = [], []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append({name: float(value.detach()) for name, value in outputs.items()})

    def after_val_epoch(self, runner, metrics=None):
        self.metrics.append(metrics)


def test_training_is_the_same_to_the_bit_with_and_without(cfg, tmp_path):
    runs = []
    for hooks in ([], [{"type": "ValLossHook"}]):
        run = Config(cfg.to_dict())
        run.work_dir = str(tmp_path / f"run{len(hooks)}")
        run.experiment_name = f"val_loss{len(hooks)}"
        run.update(randomness={"seed": 5}, custom_hooks=hooks, log_level="ERROR", default_hooks={})
        run.train_cfg.max_epochs = run.param_scheduler[1].end = 2
        runner, keep = Runner.from_cfg(run), Keep()
        runner.register_hook(keep)
        runner.train()
        runs.append((runner, keep))
    (without, plain), (with_loss, keep) = runs
    assert plain.losses == keep.losses
    got, want = with_loss.model.state_dict(), without.model.state_dict()
    assert all(got[key].equal(want[key]) for key in want)
    assert all("val_loss" not in metrics for metrics in plain.metrics)
    values = [metrics["val_loss"] for metrics in keep.metrics]
    assert values[1] < values[0]
    # What is logged is the last validation's, not a mean of all.
    assert with_loss.message_hub.get_scalar("val/val_loss").mean() == pytest.approx(values[1])
