# What FusedGN and Detectron's weights change in mmseg's FCN and UPerNet; a variable for the configs to take as model.
_base_ = '../fusedgn.py'

gn_segmentor = dict(
    data_preprocessor=_base_.detectron_preprocessor,
    # Weights with GN there are for the stem of one 7x7 convolution alone, not for ResNetV1c's of three 3x3.
    pretrained=None,
    backbone=dict(
        type='ResNet',
        norm_cfg=_base_.fused_gn,
        init_cfg=_base_.detectron_r50),
    decode_head=dict(norm_cfg=_base_.fused_gn),
    auxiliary_head=dict(norm_cfg=_base_.fused_gn))
