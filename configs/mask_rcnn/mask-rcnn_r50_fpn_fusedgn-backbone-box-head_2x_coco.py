# All but the mask head.
_base_ = './mask-rcnn_r50_fpn_fusedgn-all_2x_coco.py'

model = dict(roi_head=dict(mask_head=dict(norm_cfg=None)))
