# Where there are 64 channels (stem, res2), these are groups of one channel.
# From scratch, as the released GN weights are all of 32 groups.
_base_ = '../scratch/mask-rcnn_r50-scratch_fpn_fusedgn-all_3x_coco.py'

norm_cfg = dict(num_groups=64)
model = dict(
    backbone=dict(norm_cfg=norm_cfg),
    neck=dict(norm_cfg=norm_cfg),
    roi_head=dict(
        bbox_head=dict(norm_cfg=norm_cfg), mask_head=dict(norm_cfg=norm_cfg)))
