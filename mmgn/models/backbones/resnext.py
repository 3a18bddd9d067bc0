"""GNResNeXt, a backbone."""

from mmdet.models.backbones import ResNeXt
from mmdet.registry import MODELS

from mmgn.models.gn_by_default import GNByDefault


@MODELS.register_module()
class GNResNeXt(GNByDefault, ResNeXt):
    """mmdet's ResNeXt with FusedGN by default; norm, shortcut and ReLU are one call."""
