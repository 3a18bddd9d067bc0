"""GNFPN, a neck."""

from mmdet.models.necks import FPN
from mmdet.registry import MODELS

from mmgn.models.gn_by_default import GNByDefault


@MODELS.register_module()
class GNFPN(GNByDefault, FPN):
    """mmdet's FPN with FusedGN by default, after the lateral and the output convolutions; FPN itself has no norm."""
