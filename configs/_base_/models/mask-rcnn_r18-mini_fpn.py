# Mask R-CNN small enough to train from scratch on two cores in minutes: ResNet-18 with a quarter of its
# channels, 64-channel heads, and proposal counts for images with a handful of objects.
_base_ = './mask-rcnn_r50_fpn_4conv1fc.py'

model = dict(
    backbone=dict(
        depth=18,
        base_channels=16,
        frozen_stages=-1,
        zero_init_residual=False,
        init_cfg=None),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=64),
    rpn_head=dict(
        in_channels=64,
        feat_channels=64,
        # Sides of 16 to 256 pixels, for images of 160.
        anchor_generator=dict(scales=[4])),
    roi_head=dict(
        bbox_roi_extractor=dict(
            roi_layer=dict(sampling_ratio=1), out_channels=64),
        bbox_head=dict(
            in_channels=64,
            conv_out_channels=64,
            fc_out_channels=256,
            num_classes=10,
            reg_class_agnostic=True),
        mask_roi_extractor=dict(
            roi_layer=dict(sampling_ratio=1), out_channels=64),
        mask_head=dict(in_channels=64, conv_out_channels=32, num_classes=10)),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=500, max_per_img=200),
        rcnn=dict(sampler=dict(num=32, pos_fraction=0.5))),
    test_cfg=dict(
        rpn=dict(nms_pre=300, max_per_img=100), rcnn=dict(max_per_img=30)))
