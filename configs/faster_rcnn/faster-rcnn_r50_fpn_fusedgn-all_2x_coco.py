_base_ = [
    'mmdet::faster_rcnn/faster-rcnn_r50_fpn_2x_coco.py', '../_base_/fusedgn.py'
]

norm_cfg = _base_.fused_gn
model = dict(
    data_preprocessor=_base_.detectron_preprocessor,
    backbone=dict(norm_cfg=norm_cfg, init_cfg=_base_.detectron_r50),
    neck=dict(norm_cfg=norm_cfg),
    roi_head=dict(
        bbox_head=dict(
            type='Shared4Conv1FCBBoxHead',
            conv_out_channels=256,
            norm_cfg=norm_cfg)))

optim_wrapper = dict(paramwise_cfg=dict(norm_decay_mult=0.))
