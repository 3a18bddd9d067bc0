"""Detectors."""

from mmgn.models.detectors.two_stage import GNCascadeRCNN, GNFasterRCNN, GNMaskRCNN

__all__ = ["GNCascadeRCNN", "GNFasterRCNN", "GNMaskRCNN"]
