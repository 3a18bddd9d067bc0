"""Semantic segmentation heads."""

from mmgn.models.seg_heads.panoptic_fpn_head import GNPanopticFPNHead

__all__ = ["GNPanopticFPNHead"]
