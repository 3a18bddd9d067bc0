# BN* everywhere but in the box head: what a norm in the head brings by itself.
_base_ = './mask-rcnn_r50_fpn_bn-frozen_2x_coco.py'

norm_cfg = dict(type='FusedGN', num_groups=32)
model = dict(roi_head=dict(bbox_head=dict(norm_cfg=norm_cfg)))

optim_wrapper = dict(paramwise_cfg=dict(norm_decay_mult=0.))

custom_hooks = [*_base_.custom_hooks, dict(type='FuseGNHook')]
