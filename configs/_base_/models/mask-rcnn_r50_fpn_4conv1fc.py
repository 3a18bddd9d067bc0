# The box head of Group Normalization's FPN rows (4 convs and 1 fc), so that norms are compared in one architecture.
_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'

model = dict(
    roi_head=dict(
        bbox_head=dict(type='Shared4Conv1FCBBoxHead', conv_out_channels=256)))
