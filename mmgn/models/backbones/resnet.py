"""GNResNet, a backbone."""

from mmdet.models.backbones import ResNet
from mmdet.registry import MODELS

from mmgn.models.gn_by_default import GNByDefault


@MODELS.register_module()
class GNResNet(GNByDefault, ResNet):
    """mmdet's ResNet with FusedGN by default; norm, shortcut and ReLU are one call."""
