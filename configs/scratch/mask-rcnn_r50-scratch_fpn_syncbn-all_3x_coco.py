# The GN row with SyncBN in every place: statistics over all GPUs' images, so it needs several GPUs.
_base_ = './mask-rcnn_r50-scratch_fpn_fusedgn-all_3x_coco.py'

# A copy in each place: _delete_ is taken out of the one that is merged.
norm_cfg = dict(type='SyncBN', requires_grad=True, _delete_=True)
model = dict(
    # With norm_eval the statistics would stay those of initialisation: no normalisation at all.
    backbone=dict(norm_cfg=dict(norm_cfg), norm_eval=False),
    neck=dict(norm_cfg=dict(norm_cfg)),
    roi_head=dict(
        bbox_head=dict(norm_cfg=dict(norm_cfg)),
        mask_head=dict(norm_cfg=dict(norm_cfg))))

custom_hooks = [h for h in _base_.custom_hooks if h.type != 'FuseGNHook']
