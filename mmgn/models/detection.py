"""What mmgn has of detectors' parts; importing this registers them all in ``mmdet.registry.MODELS``."""

from mmgn.models.backbones import GNResNet, GNResNeXt
from mmgn.models.dense_heads import GNRPNHead
from mmgn.models.detectors import GNCascadeRCNN, GNFasterRCNN, GNMaskRCNN
from mmgn.models.necks import GNFPN
from mmgn.models.roi_heads import GNFCNMaskHead, GNShared4Conv1FCBBoxHead
from mmgn.models.seg_heads import GNPanopticFPNHead
from mmgn.models.test_time_augs import MaskTTAModel

__all__ = [
    "GNFPN",
    "GNCascadeRCNN",
    "GNFCNMaskHead",
    "GNFasterRCNN",
    "GNMaskRCNN",
    "GNPanopticFPNHead",
    "GNRPNHead",
    "GNResNeXt",
    "GNResNet",
    "GNShared4Conv1FCBBoxHead",
    "MaskTTAModel",
]
