"""GNPanopticFPNHead, a semantic segmentation head."""

from mmdet.models.seg_heads import PanopticFPNHead
from mmdet.registry import MODELS

from mmgn.models.gn_by_default import GNByDefault


@MODELS.register_module()
class GNPanopticFPNHead(GNByDefault, PanopticFPNHead):
    """mmdet's PanopticFPNHead, whose norm is GN, with FusedGN and ReLU by default, as one call."""
