# One channel a group is Instance Normalization.
_base_ = './mask-rcnn_r18-mini_fpn_fusedgn-all_digits.py'

# In place of the base's num_groups. A copy in each place: _delete_ is taken out of the one that is merged.
norm_cfg = dict(type='FusedGN', channels_per_group=1, _delete_=True)
model = dict(
    backbone=dict(norm_cfg=dict(norm_cfg)),
    neck=dict(norm_cfg=dict(norm_cfg)),
    roi_head=dict(
        bbox_head=dict(norm_cfg=dict(norm_cfg)),
        mask_head=dict(norm_cfg=dict(norm_cfg))))
