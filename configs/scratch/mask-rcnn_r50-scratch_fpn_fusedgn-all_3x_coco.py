_base_ = '../mask_rcnn/mask-rcnn_r50_fpn_fusedgn-all_3x_coco.py'

# Nothing is known yet, so nothing may be frozen: a frozen random res2 cost Detectron 3 AP.
model = dict(
    backbone=dict(frozen_stages=-1, zero_init_residual=False, init_cfg=None))
