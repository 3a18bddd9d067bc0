"""Handwritten digits in the folders that ImageNet's and ADE20K's data sets read, for full-size configs as they are."""

import cv2
import numpy as np
import pytest
import torch

IMAGES = {"train": range(8), "val": range(8, 12)}


@pytest.fixture(scope="session")
def digits():
    """Grey images of 64 x 64 and their digits."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = [cv2.resize(np.uint8(image * 15.9), (64, 64), interpolation=cv2.INTER_CUBIC) for image in data.images[:12]]
    return images, data.target[:12].tolist()


@pytest.fixture(scope="session")
def imagenet(digits, tmp_path_factory):
    """ImageNet's layout with lists of files: the classes are ImageNet's first ten."""
    root = tmp_path_factory.mktemp("imagenet")
    (root / "meta").mkdir()
    for split, indices in IMAGES.items():
        (root / split).mkdir()
        for i in indices:
            cv2.imwrite(str(root / split / f"{i}.jpg"), digits[0][i])
        lines = [f"{i}.jpg {digits[1][i]}\n" for i in indices]
        (root / "meta" / f"{split}.txt").write_text("".join(lines))
    return root


@pytest.fixture(scope="session")
def ade20k(digits, tmp_path_factory):
    """ADE20K's layout: the background is its class 1, 'wall', digits are those after it."""
    root = tmp_path_factory.mktemp("ade20k")
    for split, indices in zip(("training", "validation"), IMAGES.values(), strict=True):
        for kind in ("images", "annotations"):
            (root / kind / split).mkdir(parents=True)
        for i in indices:
            image = digits[0][i]
            labels = np.where(image > 60, 2 + digits[1][i], 1).astype(np.uint8)
            cv2.imwrite(str(root / "images" / split / f"{i}.jpg"), image)
            cv2.imwrite(str(root / "annotations" / split / f"{i}.png"), labels)
    return root


@pytest.fixture(scope="session")
def detectron(tmp_path_factory):
    """Random weights in the place of ``open-mmlab://detectron/resnet50_gn``, by the same names, mmdet's ResNet's."""
    from mmdet.models import ResNet

    path = tmp_path_factory.mktemp("weights") / "resnet50_gn.pth"
    torch.manual_seed(0)
    torch.save(ResNet(50, norm_cfg=dict(type="GN", num_groups=32)).state_dict(), path)
    return path


@pytest.fixture(scope="session")
def options(imagenet, ade20k, detectron):
    """By framework, what has its full-size configs train for two steps on small images, and validate."""

    def loaders(root, splits):
        here = {"num_workers": 0, "persistent_workers": False, "dataset.data_root": str(root)}
        return {f"{split}_dataloader.{key}": value for split in splits for key, value in here.items()}

    splits = ("train", "val", "test")
    return {
        "mmpretrain": {
            **loaders(imagenet, splits),
            "train_dataloader.batch_size": 4,
            "train_dataloader.dataset.pipeline.1.scale": 64,
            "optim_wrapper.optimizer.lr": 0.1 * 4 / 256,
            "train_cfg.max_epochs": 1,
        },
        "mmseg": {
            **loaders(ade20k, splits),
            "train_dataloader.batch_size": 2,
            "default_hooks.checkpoint.save_optimizer": False,
            # In the place of a download.
            "model.backbone.init_cfg.checkpoint": str(detectron),
            "model.data_preprocessor.size": (64, 64),
            "train_dataloader.dataset.pipeline.2.scale": (64, 64),
            "train_dataloader.dataset.pipeline.3.crop_size": (64, 64),
            **{f"{split}_dataloader.dataset.pipeline.1.scale": (64, 64) for split in ("val", "test")},
            "train_cfg.max_iters": 2,
            "train_cfg.val_interval": 2,
        },
    }


@pytest.fixture
def overfit():
    """Train a built model on one batch over and over; return the losses. All of it must move, and they must fall."""

    def run(model, step, steps):
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        losses = [step() for _ in range(steps)]
        still = [name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])]
        assert still == []
        assert losses[-1] < 0.9 * losses[0], losses
        return losses

    return run


@pytest.fixture(scope="session")
def images(digits):
    """Eight digits as a classifier of colour images takes them, (8, 3, 64, 64)."""
    return torch.from_numpy(np.stack(digits[0][:8]))[:, None].expand(-1, 3, -1, -1) / 255


@pytest.fixture
def classify(digits, images):
    """Return what trains a classifier by one step, and returns the loss."""

    def start(model, lr=0.02):
        labels = torch.tensor(digits[1][:8])
        optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)

        def step():
            loss = torch.nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.item()

        return step

    return start
