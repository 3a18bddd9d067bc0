_base_ = './mask-rcnn_r50_fpn_fusedgn-ws-all_2x_coco.py'

param_scheduler = [
    _base_.param_scheduler[0],
    dict(_base_.param_scheduler[1], milestones=[20, 23])
]
