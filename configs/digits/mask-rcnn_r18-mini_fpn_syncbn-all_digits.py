# Between processes it needs GPUs, as torch has no SyncBN for the CPU; in one process mmengine makes it BN.
_base_ = './mask-rcnn_r18-mini_fpn_bn_digits.py'

norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    backbone=dict(norm_cfg=norm_cfg),
    neck=dict(norm_cfg=norm_cfg),
    roi_head=dict(
        bbox_head=dict(norm_cfg=norm_cfg), mask_head=dict(norm_cfg=norm_cfg)))
