# A negative result of the paper: BN fine-tuned, with statistics of the two images a GPU has.
_base_ = '../mask_rcnn/mask-rcnn_r50_fpn_bn-frozen_2x_coco.py'

model = dict(
    backbone=dict(norm_cfg=dict(requires_grad=True), norm_eval=False))

optim_wrapper = dict(paramwise_cfg=dict(norm_decay_mult=0.))
