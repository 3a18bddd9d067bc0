# Handwritten digits, one an image, made by mmgn.datasets.digit_images in ImageNet's layout.
# Types are mmpretrain's even where this is a base by mmgn::, whose types are mmdet's otherwise.
dataset_type = 'CustomDataset'
data_root = 'data/digits-lit/'
data_preprocessor = dict(num_classes=10, mean=[127.5], std=[127.5])

# No flip and no crop: a mirrored or cut digit is another one or none.
pipeline = [
    dict(type='LoadImageFromFile', color_type='grayscale'),
    dict(type='PackInputs')
]
# Loading an image takes 0.1 ms, less than handing it from one process to another.
train_dataloader = dict(
    batch_size=32,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        _scope_='mmpretrain',
        type=dataset_type,
        data_root=data_root,
        data_prefix='train',
        pipeline=pipeline))
val_dataloader = dict(
    batch_size=100,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        _scope_='mmpretrain',
        type=dataset_type,
        data_root=data_root,
        data_prefix='val',
        pipeline=pipeline))
test_dataloader = val_dataloader

val_evaluator = dict(_scope_='mmpretrain', type='Accuracy', topk=(1, ))
test_evaluator = val_evaluator
