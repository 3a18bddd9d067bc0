_base_ = [
    'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    '../_base_/fusedgn.py'
]

norm_cfg = _base_.fused_gn
model = dict(
    data_preprocessor=_base_.detectron_preprocessor,
    # The base is BN* with caffe's strides; the GN weights have the stride on the 3x3 conv.
    backbone=dict(
        style='pytorch',
        norm_cfg=dict(**norm_cfg, _delete_=True),
        init_cfg=_base_.detectron_r50),
    neck=dict(norm_cfg=norm_cfg),
    # FCOSHead has GN by default, without a word of it in mmdet's config.
    bbox_head=dict(norm_cfg=norm_cfg))

optim_wrapper = dict(paramwise_cfg=dict(norm_decay_mult=0.))
