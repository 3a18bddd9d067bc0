"""The base configs of full size, planned on folders of the user's: what BN* starts from there, and what is not held."""

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("mmpretrain")
pytest.importorskip("mmseg")

from mmengine.config import Config
from PIL import Image

from mmgn.engine.config import load_config
from mmgn.engine.model import build_model
from mmgn.models.norms import norm_layers
from mmgn.study.plan import plan
from mmgn.study.study import Options


@pytest.fixture(scope="module")
def image():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def imagenet(image, tmp_path_factory):
    """``train/CLASS/*`` and ``val/CLASS/*``: mmpretrain wants all thousand classes."""
    root = tmp_path_factory.mktemp("data") / "imagenet"
    for split in ("train", "val"):
        for number in range(1000):
            folder = root / split / f"n{number:08d}"
            folder.mkdir(parents=True)
            image.save(folder / f"{number}.JPEG")
    return root


@pytest.fixture(scope="module")
def ade20k(image, tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "ade20k"
    for split, count in (("training", 6), ("validation", 2)):
        for kind in ("images", "annotations"):
            (root / kind / split).mkdir(parents=True)
        for index in range(count):
            image.save(root / "images" / split / f"{index}.jpg")
            Image.fromarray(np.full((64, 64), index, np.uint8)).save(root / "annotations" / split / f"{index}.png")
    return root


@pytest.fixture
def planned(tmp_path):
    def make(task, data, **changes):
        study = plan(Options(task, tmp_path / "out", str(data), seeds=1, **changes))
        for cell in study.cells:
            study.record_settings(cell)
        return study

    return make


def test_classification_reads_imagenets_folders_and_has_its_own_bn_for_bn_frozen(imagenet, planned):
    study = planned("classification", imagenet, norms=("BN*", "GN"), batch_sizes=(2,), groups=(16,))
    frozen, group, sixteen, trained = study.cells
    assert (study.facts[frozen]["start"], study.facts[group]["start"]) == (trained.id, "scratch")
    assert study.facts[group]["images"] == 100 * 1000
    assert study.facts[group]["lr"] == f"{0.1 * 2 / 256:.6g}"
    cfg = Config.fromfile(study.config(sixteen))
    assert cfg.model.backbone.norm_cfg == dict(type="FusedGN", num_groups=16)
    assert Path(cfg.train_dataloader.dataset.data_root) == imagenet
    assert not [line for line in study.head if line.startswith("not held")]


def test_segmentation_starts_bn_frozen_from_torchvision_and_says_what_that_changes(ade20k, planned):
    study = planned("segmentation", ade20k, norms=("BN*", "GN"), batch_sizes=(2,))
    frozen, group = study.cells
    assert (study.facts[frozen]["start"], study.facts[group]["start"]) == ("torchvision://resnet50", "scratch")
    assert study.facts[group]["images"] == 80_000 * 16
    configs = {cell.norm: load_config(str(study.config(cell))) for cell in study.cells}
    assert configs["GN"].model.backbone.init_cfg is None
    assert configs["BN*"].model.backbone.init_cfg.checkpoint == "torchvision://resnet50"
    # What the head says that a BN* cell does not share with the others: its images ...
    told = [line for line in study.head if line.startswith("not held")]
    assert told == [
        "not held: BN* gets images normalised by ImageNet's mean and deviation, and is the identity outside the "
        "backbone, where it has no statistics"
    ]
    assert configs["BN*"].model.data_preprocessor.mean == [123.675, 116.28, 103.53]
    assert configs["GN"].model.data_preprocessor.mean != configs["BN*"].model.data_preprocessor.mean
    # ... and its norms.
    heads = [norm.module for norm in norm_layers(build_model(configs["BN*"])) if "head" in norm.name]
    assert len(heads) == 4
    for norm in heads:
        x = torch.randn(1, norm.num_features, 2, 2)
        torch.testing.assert_close(norm(x), x)


def test_several_processes_have_running_statistics_of_their_own(ade20k, planned):
    told = "not held: each process validates its share of the images with BN's running statistics of its own"
    for norm, processes in (("BN", 2), ("BN", 1), ("SyncBN", 2)):
        launcher = "slurm" if processes > 1 else "none"
        study = planned("segmentation", ade20k, norms=(norm,), batch_sizes=(2,), launcher=launcher, processes=processes)
        assert (told in study.head) == (norm == "BN" and processes > 1)
