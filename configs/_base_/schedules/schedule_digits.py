train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=4, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=0.001, weight_decay=0.05),
    # One AdamW step moves all 3136 weights into an fc neuron by about lr, together enough to overthrow what the box
    # head has learned: after 250 iterations at the full rate its loss was a third higher.
    # A key of custom_keys that matches puts norm_decay_mult out of force, so the head's norms have their own.
    paramwise_cfg=dict(
        norm_decay_mult=0.,
        custom_keys={
            'bbox_head': dict(lr_mult=0.2),
            **{
                f'bbox_head.shared_convs.{i}.{norm}': dict(
                    lr_mult=0.2, decay_mult=0.)
                for i in range(4) for norm in ('gn', 'bn')
            }
        }))

param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=40),
    # To the end of training, whatever --epochs makes of it.
    dict(
        type='CosineAnnealingLR',
        eta_min=0,
        begin=0,
        end=4,
        by_epoch=True,
        convert_to_iter_based=True)
]

# What lr is for; tools/study.py scales it to other batches, nothing else does unless enable is set.
auto_scale_lr = dict(enable=False, base_batch_size=4)
