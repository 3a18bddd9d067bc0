_base_ = [
    '../_base_/models/mask-rcnn_r50-c4.py',
    'mmdet::_base_/datasets/coco_instance.py',
    'mmdet::_base_/schedules/schedule_2x.py',
    'mmdet::_base_/default_runtime.py', '../_base_/fusedgn.py'
]

model = dict(
    data_preprocessor=_base_.detectron_preprocessor,
    # The base is BN*: its requires_grad=False must not come along.
    backbone=dict(
        norm_cfg=dict(**_base_.fused_gn, _delete_=True),
        init_cfg=_base_.detectron_r50),
    # res5, the one part of a C4 head that has norms.
    roi_head=dict(
        shared_head=dict(
            norm_cfg=dict(**_base_.fused_gn, _delete_=True),
            init_cfg=_base_.detectron_r50)))

optim_wrapper = dict(paramwise_cfg=dict(norm_decay_mult=0.))
