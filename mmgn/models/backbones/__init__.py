"""Backbones."""

from mmgn.models.backbones.resnet import GNResNet
from mmgn.models.backbones.resnext import GNResNeXt

__all__ = ["GNResNeXt", "GNResNet"]
