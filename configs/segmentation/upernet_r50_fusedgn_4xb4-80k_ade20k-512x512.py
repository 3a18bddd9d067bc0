_base_ = [
    '../_base_/models/detectron_gn_segmentor.py',
    'mmseg::upernet/upernet_r50_4xb4-80k_ade20k-512x512.py'
]

norm_cfg = _base_.fused_gn
model = _base_.gn_segmentor

optim_wrapper = dict(paramwise_cfg=dict(norm_decay_mult=0.))
auto_scale_lr = dict(enable=False, base_batch_size=16)
