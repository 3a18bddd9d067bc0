# Weight Standardization: every conv before a norm standardises its weight.
_base_ = [
    '../_base_/models/mask-rcnn_r50_fpn_4conv1fc.py',
    'mmdet::_base_/datasets/coco_instance.py',
    'mmdet::_base_/schedules/schedule_2x.py',
    'mmdet::_base_/default_runtime.py', '../_base_/fusedgn.py'
]

gn_ws = dict(conv_cfg=dict(type='ConvWS'), norm_cfg=_base_.fused_gn)
model = dict(
    # These weights come from PyTorch, so images stay RGB with ImageNet's mean and std.
    backbone=dict(
        **gn_ws, init_cfg=dict(checkpoint='open-mmlab://jhu/resnet50_gn_ws')),
    neck=gn_ws,
    roi_head=dict(bbox_head=gn_ws, mask_head=gn_ws))

optim_wrapper = dict(paramwise_cfg=dict(norm_decay_mult=0.))
