_base_ = [
    '../_base_/fusedgn.py',
    'mmseg::fcn/fcn_r50-d8_4xb4-80k_ade20k-512x512.py'
]

norm_cfg = _base_.fused_gn
model = dict(
    data_preprocessor=_base_.detectron_preprocessor,
    # Weights with GN there are for the stem of one 7x7 convolution alone, not for ResNetV1c's of three 3x3.
    pretrained=None,
    backbone=dict(
        type='ResNet', norm_cfg=norm_cfg, init_cfg=_base_.detectron_r50),
    decode_head=dict(norm_cfg=norm_cfg),
    auxiliary_head=dict(norm_cfg=norm_cfg))

optim_wrapper = dict(paramwise_cfg=dict(norm_decay_mult=0.))
auto_scale_lr = dict(enable=False, base_batch_size=16)
