# BN* as Detectron's baselines have it, with the usual box head of 2 fc; the 4conv1fc of the other files costs more.
_base_ = [
    'mmdet::mask_rcnn/mask-rcnn_r50_fpn_2x_coco.py', '../_base_/mmgn.py'
]

model = dict(backbone=dict(norm_cfg=dict(requires_grad=False)))
