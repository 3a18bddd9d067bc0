"""Necks."""

from mmgn.models.necks.fpn import GNFPN

__all__ = ["GNFPN"]
