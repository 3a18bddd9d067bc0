# mmdet's default "BN", which is not BN*: the statistics are frozen, weight and bias train, and weight decay pulls
# both towards 0.
_base_ = './mask-rcnn_r50_fpn_bn-frozen_2x_coco.py'

model = dict(backbone=dict(norm_cfg=dict(requires_grad=True)))
