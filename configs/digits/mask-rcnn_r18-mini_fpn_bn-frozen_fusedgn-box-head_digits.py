_base_ = './mask-rcnn_r18-mini_fpn_bn-frozen_digits.py'

norm_cfg = dict(type='FusedGN', num_groups=8)
model = dict(roi_head=dict(bbox_head=dict(norm_cfg=norm_cfg)))

custom_hooks = [*_base_.custom_hooks, dict(type='FuseGNHook')]
