"""mmcv's FLOP counter, which knows layers by exact class only."""

import importlib.util
import sys

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

    def with_layer() -> dict:
        return {**table(), layer: table()[like]}

    flops_counter.get_modules_mapping = with_layer


def active() -> bool:
    """Whether mmcv's counter was given a class by :func:`count_like`."""
    counter = sys.modules.get("mmcv.cnn.utils.flops_counter")
    return counter is not None and counter.get_modules_mapping.__module__ == __name__
