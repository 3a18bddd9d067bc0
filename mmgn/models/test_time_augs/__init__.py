"""Test-time augmentation."""

from mmgn.models.test_time_augs.mask_tta import MaskTTAModel

__all__ = ["MaskTTAModel"]
