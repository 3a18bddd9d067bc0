"""What ``import mmgn`` does to the OpenMMLab packages that are installed: fit them to today, register our parts."""

import importlib
import importlib.util
import warnings

from torch import nn

from mmgn.compat import checkpoint, flops, mmcv_ops, packages
from mmgn.layers import FusedGN

# Registry of mmdet, and which module brings what is ours in it.
_IN_MMDET = {
    "MODELS": "mmgn.models.detection",
    "DATASETS": "mmgn.datasets.shared",
    "METRICS": "mmgn.evaluation.fast_coco_metric",
}


def register() -> None:
    """Apply ``mmgn.compat`` and register the layer and the hooks; with torch alone there is nothing to do."""
    mmcv_ops.install()
    if importlib.util.find_spec("mmengine") is None:
        return
    try:
        _register_with_mmengine()
        if importlib.util.find_spec("mmdet") is not None:
            _register_with_mmdet()
    # mmdet asserts the versions of mmcv and mmengine.
    except (ImportError, AssertionError) as error:
        warnings.warn(
            f"one of mmengine, mmcv and mmdet is installed but does not import ({error}): mmgn.group_norm and "
            "mmgn.FusedGN work, what mmgn adds to mmengine is not or not all there. python tools/env.py tells more.",
            stacklevel=2,
        )


def _register_with_mmengine() -> None:
    packages.install()
    checkpoint.install()
    from mmengine.config.utils import MODULE2PACKAGE
    from mmengine.registry import MODELS

    # For _base_ = 'mmgn::...'.
    MODULE2PACKAGE["mmgn"] = "mmgn"
    # The root registry, so that the type resolves under any scope (mmdet, mmpretrain, mmseg).
    MODELS.register_module(module=FusedGN)
    # Imported for their registration.
    import mmgn.engine
    import mmgn.models.converted  # noqa: F401

    # Last, as it is the one part that needs mmcv.
    flops.count_like(FusedGN, nn.GroupNorm)


def _register_with_mmdet() -> None:
    from mmdet import registry

    # mmdet's parts take seconds to import, so mmdet waits for the first build, and ours come with them.
    for name, module in _IN_MMDET.items():
        mmdets = getattr(registry, name)
        if mmdets._imported:
            importlib.import_module(module)
        elif module not in mmdets._locations:
            mmdets._locations.append(module)
