# As mmdet trains its GN configs: weight decay on the norms too.
_base_ = '../mask_rcnn/mask-rcnn_r50_fpn_fusedgn-all_2x_coco.py'

optim_wrapper = dict(paramwise_cfg=dict(norm_decay_mult=1.))
