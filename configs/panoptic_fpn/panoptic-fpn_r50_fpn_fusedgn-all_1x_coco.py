# mmdet's file has custom_hooks of its own, a key that two bases cannot share: so the variables alone, and hooks below.
_base_ = [
    'mmdet::panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py',
    '../_base_/models/detectron_gn.py'
]
custom_imports = dict(imports=['mmgn'], allow_failed_imports=False)
custom_hooks = [dict(type='RunRecordHook'), dict(type='FuseGNHook')]

norm_cfg = _base_.fused_gn
model = dict(
    data_preprocessor=_base_.detectron_preprocessor,
    backbone=dict(norm_cfg=norm_cfg, init_cfg=_base_.detectron_r50),
    neck=dict(norm_cfg=norm_cfg),
    roi_head=dict(
        bbox_head=dict(
            type='Shared4Conv1FCBBoxHead',
            conv_out_channels=256,
            norm_cfg=norm_cfg),
        mask_head=dict(norm_cfg=norm_cfg)),
    semantic_head=dict(norm_cfg=norm_cfg))

optim_wrapper = dict(paramwise_cfg=dict(norm_decay_mult=0.))
