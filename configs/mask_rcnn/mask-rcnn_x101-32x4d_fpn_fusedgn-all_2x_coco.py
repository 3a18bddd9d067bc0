_base_ = './mask-rcnn_x101-32x4d_fpn_bn-frozen_2x_coco.py'

norm_cfg = dict(type='FusedGN', num_groups=32)
model = dict(
    # These weights come from PyTorch, so images stay RGB with ImageNet's mean and std.
    backbone=dict(
        norm_cfg=dict(**norm_cfg, _delete_=True),
        init_cfg=dict(checkpoint='open-mmlab://jhu/resnext101_32x4d_gn')),
    neck=dict(norm_cfg=norm_cfg),
    roi_head=dict(
        bbox_head=dict(norm_cfg=norm_cfg), mask_head=dict(norm_cfg=norm_cfg)))

optim_wrapper = dict(paramwise_cfg=dict(norm_decay_mult=0.))

custom_hooks = [*_base_.custom_hooks, dict(type='FuseGNHook')]
