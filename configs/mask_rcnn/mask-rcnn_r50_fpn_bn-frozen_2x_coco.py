# BN*: each BN is the fixed affine map of its ImageNet statistics, nothing in it trains.
# mmdet's default "BN" (requires_grad=True, norm_eval=True) trains weight and bias, and is not BN*.
_base_ = [
    '../_base_/models/mask-rcnn_r50_fpn_4conv1fc.py',
    'mmdet::_base_/datasets/coco_instance.py',
    'mmdet::_base_/schedules/schedule_2x.py', '../_base_/default_runtime.py'
]

model = dict(
    backbone=dict(
        norm_cfg=dict(type='BN', requires_grad=False), norm_eval=True))
