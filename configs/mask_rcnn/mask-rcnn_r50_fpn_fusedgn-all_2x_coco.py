_base_ = './mask-rcnn_r50_fpn_bn-frozen_2x_coco.py'

norm_cfg = dict(type='FusedGN', num_groups=32)
model = dict(
    # What the Detectron weights were trained with: BGR, mean only.
    data_preprocessor=dict(
        mean=[103.530, 116.280, 123.675],
        std=[1.0, 1.0, 1.0],
        bgr_to_rgb=False),
    backbone=dict(
        norm_cfg=dict(**norm_cfg, _delete_=True),
        init_cfg=dict(
            type='Pretrained',
            checkpoint='open-mmlab://detectron/resnet50_gn')),
    neck=dict(norm_cfg=norm_cfg),
    roi_head=dict(
        bbox_head=dict(norm_cfg=norm_cfg), mask_head=dict(norm_cfg=norm_cfg)))

# No weight decay on the norms' weight and bias: Group Normalization calls it important.
optim_wrapper = dict(paramwise_cfg=dict(norm_decay_mult=0.))

custom_hooks = [*_base_.custom_hooks, dict(type='FuseGNHook')]
