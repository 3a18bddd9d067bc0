"""Group Normalization as the cheap, obvious choice for detection and segmentation.

``import mmgn`` needs torch alone; where mmengine is installed it also registers ``FusedGN`` and fits mmengine, mmcv
and mmdet to a current torch (see ``mmgn.compat``), so it comes before ``import mmdet``.
"""

from mmgn.layers import FusedGN
from mmgn.models import convert_norm, fuse_gn
from mmgn.ops import group_norm
from mmgn.registration import register
from mmgn.version import __version__

register()

__all__ = ["FusedGN", "__version__", "convert_norm", "fuse_gn", "group_norm"]
