# C4: the backbone ends with res4, and res5 is the box and mask head's. BN* in both.
_base_ = [
    '../_base_/models/mask-rcnn_r50-c4.py',
    'mmdet::_base_/datasets/coco_instance.py',
    'mmdet::_base_/schedules/schedule_2x.py', '../_base_/default_runtime.py'
]
