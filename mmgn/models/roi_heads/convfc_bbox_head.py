"""GNShared4Conv1FCBBoxHead, a box head."""

from mmdet.models.roi_heads import Shared4Conv1FCBBoxHead
from mmdet.registry import MODELS

from mmgn.models.gn_by_default import GNByDefault


@MODELS.register_module()
class GNShared4Conv1FCBBoxHead(GNByDefault, Shared4Conv1FCBBoxHead):
    """mmdet's Shared4Conv1FCBBoxHead with FusedGN and ReLU by default, as one call, after each convolution."""
