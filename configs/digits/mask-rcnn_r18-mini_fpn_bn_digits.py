# BN in the backbone, trained from scratch with its own batches' statistics: the twin of ImageNet's BN models, as
# BN* needs one to start from.
_base_ = [
    '../_base_/models/mask-rcnn_r18-mini_fpn.py',
    '../_base_/datasets/digits_instance.py',
    '../_base_/schedules/schedule_digits.py', '../_base_/default_runtime.py'
]

model = dict(backbone=dict(norm_eval=False))
