"""What a ``norm_cfg`` cannot express."""

from mmgn.models.conversion import ConversionReport, convert_norm
from mmgn.models.fusion import FusionReport, fuse_gn

__all__ = ["ConversionReport", "FusionReport", "convert_norm", "fuse_gn"]
