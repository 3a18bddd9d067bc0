_base_ = './mask-rcnn_r50-scratch_fpn_fusedgn-all_3x_coco.py'

# mmdet's schedule for training from scratch.
max_epochs = 73
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    _base_.param_scheduler[0],
    dict(_base_.param_scheduler[1], end=max_epochs, milestones=[65, 71])
]
