"""What a ``norm_cfg`` cannot express."""

from mmgn.models.fusion import FusionReport, fuse_gn

__all__ = ["FusionReport", "fuse_gn"]
