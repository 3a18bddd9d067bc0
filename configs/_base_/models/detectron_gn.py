# The norm of the paper, and its ImageNet weights as Detectron released them: trained with 32 groups, on BGR images
# of which the mean is taken and nothing else. Variables for the configs to put where they belong.
fused_gn = dict(type='FusedGN', num_groups=32)
detectron_preprocessor = dict(
    mean=[103.530, 116.280, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False)
detectron_r50 = dict(
    type='Pretrained', checkpoint='open-mmlab://detectron/resnet50_gn')
