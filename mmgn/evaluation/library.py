"""The one door to faster-coco-eval, an optional dependency."""

import importlib
from types import ModuleType


def require(module: str) -> ModuleType:
    """Import a module of faster-coco-eval.

    Args:
        module: below ``faster_coco_eval.core``, such as ``mask``.

    Raises:
        ImportError: it is not installed; the message names the extra that brings it.
    """
    try:
        return importlib.import_module(f"faster_coco_eval.core.{module}")
    except ImportError as error:
        raise ImportError(
            f"COCO evaluation needs faster-coco-eval, which does not import ({error}): pip install 'mmgn[report]'"
        ) from error
