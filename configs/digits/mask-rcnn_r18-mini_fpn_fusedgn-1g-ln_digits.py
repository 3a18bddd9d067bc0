# One group is Layer Normalization.
_base_ = './mask-rcnn_r18-mini_fpn_fusedgn-all_digits.py'

norm_cfg = dict(num_groups=1)
model = dict(
    backbone=dict(norm_cfg=norm_cfg),
    neck=dict(norm_cfg=norm_cfg),
    roi_head=dict(
        bbox_head=dict(norm_cfg=norm_cfg), mask_head=dict(norm_cfg=norm_cfg)))
