"""The one door to faster-coco-eval, an optional dependency."""

import importlib
from types import ModuleType

#: Older ones give other figures than pycocotools, without a word.
MINIMUM = (1, 7)


def require(module: str) -> ModuleType:
    """Import a module of faster-coco-eval.

    Args:
        module: below ``faster_coco_eval.core``, such as ``mask``.

    Raises:
        ImportError: it is not installed, or too old; the message names the extra that brings it.
    """
    try:
        version = importlib.import_module("faster_coco_eval").__version__
        found = importlib.import_module(f"faster_coco_eval.core.{module}")
    except ImportError as error:
        raise ImportError(
            f"COCO evaluation needs faster-coco-eval, which does not import ({error}): pip install 'mmgn[report]'"
        ) from error
    if tuple(map(int, version.split(".")[:2])) < MINIMUM:
        raise ImportError(
            f"faster-coco-eval {version} is too old to agree with pycocotools, {'.'.join(map(str, MINIMUM))} is "
            "needed: pip install -U 'mmgn[report]'"
        )
    return found
