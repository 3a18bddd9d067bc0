"""mmcv's FLOP counter, which knows layers by exact class only."""

import importlib.util

from torch import nn


def count_like(layer: type[nn.Module], like: type[nn.Module]) -> None:
    """Make ``mmcv.cnn.get_model_complexity_info`` count ``layer`` as it counts ``like``; nothing without mmcv.

    Args:
        layer: a class the counter does not know, and would count as 0.
        like: a class it knows.
    """
    if importlib.util.find_spec("mmcv") is None:
        return
    from mmcv.cnn.utils import flops_counter

    # The table is a literal inside this function: there is no registry to extend.
    table = flops_counter.get_modules_mapping
    flops_counter.get_modules_mapping = lambda: {**table(), layer: table()[like]}
