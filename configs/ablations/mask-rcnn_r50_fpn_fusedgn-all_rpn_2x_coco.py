# GN in the RPN as well, where neither the paper nor mmdet has a norm.
_base_ = '../mask_rcnn/mask-rcnn_r50_fpn_fusedgn-all_2x_coco.py'

model = dict(rpn_head=dict(type='GNRPNHead', norm_cfg=_base_.fused_gn))
