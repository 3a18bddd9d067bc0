"""The layer."""

from mmgn.layers.group_norm import FusedGN

__all__ = ["FusedGN"]
