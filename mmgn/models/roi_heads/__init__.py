"""Heads of RoIs."""

from mmgn.models.roi_heads.convfc_bbox_head import GNShared4Conv1FCBBoxHead
from mmgn.models.roi_heads.fcn_mask_head import GNFCNMaskHead

__all__ = ["GNFCNMaskHead", "GNShared4Conv1FCBBoxHead"]
