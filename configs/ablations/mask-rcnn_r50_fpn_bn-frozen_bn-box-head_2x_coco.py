# A negative result of the paper: BN in the box head, whose batch is RoIs of the same two images.
_base_ = '../mask_rcnn/mask-rcnn_r50_fpn_bn-frozen_2x_coco.py'

model = dict(roi_head=dict(bbox_head=dict(norm_cfg=dict(type='BN'))))

optim_wrapper = dict(paramwise_cfg=dict(norm_decay_mult=0.))
