"""Functional API; needs torch alone."""

from mmgn.ops import library
from mmgn.ops.functional import Choice, explain, group_norm

__all__ = ["Choice", "explain", "group_norm", "library"]
