_base_ = '../mask_rcnn/mask-rcnn_r50_fpn_fusedgn-all_2x_coco.py'

batch_size = 4
# The learning rate goes with the batch (linear scaling rule).
scale = batch_size / _base_.train_dataloader.batch_size
train_dataloader = dict(batch_size=batch_size)
optim_wrapper = dict(
    optimizer=dict(lr=_base_.optim_wrapper.optimizer.lr * scale))
auto_scale_lr = dict(
    base_batch_size=int(_base_.auto_scale_lr.base_batch_size * scale))
