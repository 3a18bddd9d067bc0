_base_ = [
    '../_base_/fusedgn.py', 'mmpretrain::resnet/resnet50_8xb32_in1k.py'
]

# The paper's: 100 epochs, decay of weight and bias too, gamma of each block's last norm 0 at first (a default there).
model = dict(backbone=dict(norm_cfg=_base_.fused_gn))

# As mmpretrain's own tools have it.
train_dataloader = dict(pin_memory=True, persistent_workers=True)
val_dataloader = dict(pin_memory=True, persistent_workers=True)
test_dataloader = dict(pin_memory=True, persistent_workers=True)

auto_scale_lr = dict(enable=False)
