"""GNFCNMaskHead, a mask head."""

from mmdet.models.roi_heads import FCNMaskHead
from mmdet.registry import MODELS

from mmgn.models.gn_by_default import GNByDefault


@MODELS.register_module()
class GNFCNMaskHead(GNByDefault, FCNMaskHead):
    """mmdet's FCNMaskHead with FusedGN and ReLU by default, as one call, after each convolution."""
