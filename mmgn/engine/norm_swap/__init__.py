"""From any detector's config to the same one with group norm."""

from mmgn.engine.norm_swap.request import PARTS, TARGETS, SwapRequest
from mmgn.engine.norm_swap.source import Source, read_source
from mmgn.engine.norm_swap.swap import Swap, swap_norm

__all__ = ["PARTS", "TARGETS", "Source", "Swap", "SwapRequest", "read_source", "swap_norm"]
