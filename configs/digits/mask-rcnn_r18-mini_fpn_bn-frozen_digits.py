# BN*: the backbone of the trained BN twin, its BN frozen all through. Neck and heads start anew, as after ImageNet;
# frozen from scratch, BN would be the identity.
_base_ = './mask-rcnn_r18-mini_fpn_bn_digits.py'

model = dict(
    backbone=dict(
        frozen_stages=1,
        norm_cfg=dict(requires_grad=False),
        norm_eval=True,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='work_dirs/mask-rcnn_r18-mini_fpn_bn_digits/'
            f'epoch_{_base_.train_cfg.max_epochs}.pth',
            prefix='backbone.',
            _delete_=True)))
