_base_ = [
    '../_base_/models/mask-rcnn_r50_fpn_4conv1fc.py',
    'mmdet::_base_/datasets/coco_instance.py',
    'mmdet::_base_/schedules/schedule_2x.py',
    'mmdet::_base_/default_runtime.py', '../_base_/fusedgn.py'
]

norm_cfg = _base_.fused_gn
model = dict(
    data_preprocessor=_base_.detectron_preprocessor,
    backbone=dict(norm_cfg=norm_cfg, init_cfg=_base_.detectron_r50),
    neck=dict(norm_cfg=norm_cfg),
    roi_head=dict(
        bbox_head=dict(norm_cfg=norm_cfg), mask_head=dict(norm_cfg=norm_cfg)))

# No weight decay on the norms' weight and bias: Group Normalization calls it important.
optim_wrapper = dict(paramwise_cfg=dict(norm_decay_mult=0.))
