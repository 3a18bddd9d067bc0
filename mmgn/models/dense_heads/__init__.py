"""Dense heads."""

from mmgn.models.dense_heads.rpn_head import GNRPNHead

__all__ = ["GNRPNHead"]
