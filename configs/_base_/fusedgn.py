# Beside any of mmdet's configs: fused_gn, Detectron's weights, and ReLU and residual folded into the norms.
_base_ = ['./mmgn.py', './models/detectron_gn.py']

custom_hooks = [*_base_.custom_hooks, dict(type='FuseGNHook')]
