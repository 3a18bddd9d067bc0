# mmdet's C4 with the stride on the 3x3 conv, as the weights of both arms have it: torchvision's and Detectron's GN.
_base_ = 'mmdet::_base_/models/mask-rcnn_r50-caffe-c4.py'

resnet50 = dict(type='Pretrained', checkpoint='torchvision://resnet50')
model = dict(
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True),
    backbone=dict(style='pytorch', init_cfg=resnet50),
    # mmdet's file gives res5 no weights; with its BN frozen, every norm in it would be the identity.
    roi_head=dict(shared_head=dict(style='pytorch', init_cfg=resnet50)))
