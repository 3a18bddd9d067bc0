_base_ = [
    '../_base_/models/mask-rcnn_r18-mini_fpn.py',
    '../_base_/datasets/digits_instance.py',
    '../_base_/schedules/schedule_digits.py', '../_base_/default_runtime.py'
]

# 8 groups: the smallest layer has 16 channels.
norm_cfg = dict(type='FusedGN', num_groups=8)
model = dict(
    backbone=dict(norm_cfg=dict(**norm_cfg, _delete_=True)),
    neck=dict(norm_cfg=norm_cfg),
    roi_head=dict(
        bbox_head=dict(norm_cfg=norm_cfg), mask_head=dict(norm_cfg=norm_cfg)))

custom_hooks = [*_base_.custom_hooks, dict(type='FuseGNHook')]
