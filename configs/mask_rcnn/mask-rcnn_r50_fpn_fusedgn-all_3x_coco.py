_base_ = './mask-rcnn_r50_fpn_fusedgn-all_2x_coco.py'

# 36 epochs for the paper's 270k iterations of 16 images. Its steps, 210k and 250k, would be at 28 and 33.3 epochs;
# these are mmdet's.
max_epochs = 36
train_cfg = dict(max_epochs=max_epochs)
param_scheduler = [
    _base_.param_scheduler[0],
    dict(_base_.param_scheduler[1], end=max_epochs, milestones=[28, 34])
]
