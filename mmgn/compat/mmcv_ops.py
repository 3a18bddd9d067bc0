"""mmcv's operators where mmcv has no compiled extension, as in `mmcv-lite`.

`mmcv.ops` takes every operator from the extension module `mmcv._ext`. `install` puts a finder at the very end
of `sys.meta_path`, so that a compiled `mmcv._ext` is always found first; where there is none, the finder
supplies a module of that name with the operators of `mmgn.compat.ops`. Every other operator can still be
imported, and raises when called.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, NoReturn

# Operator, without _forward and _backward -> what runs it.
SERVED_BY = {
    "nms": "torchvision",
    "softnms": "torch",
    "nms_match": "torch",
    "roi_align": "torchvision",
    "roi_pool": "torchvision",
    "sigmoid_focal_loss": "torch",
    "softmax_focal_loss": "torch",
    "deform_conv": "torchvision",
    "modulated_deform_conv": "torchvision",
}

_INSTALL_COMPILED = (
    "a compiled mmcv >=2.0.1,<2.2 built against this torch: `mim install 'mmcv>=2.0.1,<2.2'`, or from source "
    "`MMCV_WITH_OPS=1 pip install --no-build-isolation --no-binary mmcv 'mmcv>=2.0.1,<2.2'` (setuptools<81)"
)


def install() -> None:
    """Let `mmcv.ops` import without a compiled mmcv. Imports nothing; a second call changes nothing."""
    if _FINDER not in sys.meta_path:
        sys.meta_path.append(_FINDER)


def served_ops() -> dict[str, str]:
    """Tell what runs each of mmcv's operators here, without importing mmcv or torchvision.

    Returns:
        Operator -> "mmcv (compiled)", "torchvision", "torch" or "not served". The last entry, "other ops",
        stands for all operators of mmcv that have no entry of their own.
    """
    operators = {**SERVED_BY, "other ops": "not served"}
    extension = _find_extension()
    if extension is None:
        return dict.fromkeys(operators, "not served")
    if isinstance(extension.loader, _ExtensionLoader):
        return operators
    return dict.fromkeys(operators, "mmcv (compiled)")


def unserved(what: str) -> NotImplementedError:
    """The error for an operator, or a mode of one, that only a compiled mmcv has."""
    return NotImplementedError(
        f"mmcv's {what} needs the compiled extension mmcv._ext, which the installed mmcv lacks; in its place "
        f"mmgn serves {', '.join(SERVED_BY)}. For the rest `pip uninstall mmcv-lite` and install "
        f"{_INSTALL_COMPILED}."
    )


def _find_extension() -> ModuleSpec | None:
    """The spec that `import mmcv._ext` has or would get; importlib.util.find_spec would import mmcv."""
    if "mmcv._ext" in sys.modules:
        return sys.modules["mmcv._ext"].__spec__
    mmcv = importlib.util.find_spec("mmcv")
    if mmcv is None:
        return None
    compiled = PathFinder.find_spec("mmcv._ext", mmcv.submodule_search_locations)
    if compiled is None and _FINDER in sys.meta_path:
        return _FINDER.find_spec("mmcv._ext")
    return compiled


def _unserved_op(module: ModuleType, name: str) -> Callable[..., NoReturn]:
    """`__getattr__` of the extension module: a function that raises, for every operator not served."""
    # inspect, pickle and copy ask for dunders; no operator's name starts with an underscore.
    if name.startswith("_"):
        raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")

    def op(*args: Any, **kwargs: Any) -> NoReturn:
        raise unserved(name)

    op.__name__ = op.__qualname__ = name
    op.__module__ = module.__name__
    # Kept, because pickle looks a function up by name and wants the same object back.
    setattr(module, name, op)
    return op


class _ExtensionLoader(Loader):
    """Fills `mmcv._ext` with the operators of `mmgn.compat.ops`."""

    def exec_module(self, module: ModuleType) -> None:
        from mmgn.compat import ops

        vars(module).update({name: getattr(ops, name) for name in ops.__all__})
        vars(module)["__getattr__"] = functools.partial(_unserved_op, module)


class _ExtensionFinder(MetaPathFinder):
    """Answers for `mmcv._ext` alone, and explains a missing mmcv to whoever imports mmdet."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == "mmcv._ext":
            return ModuleSpec(fullname, _ExtensionLoader(), origin="mmgn.compat.ops")
        # Whoever else asks for mmcv gets python's own answer.
        if fullname == "mmcv" and _mmdet_is_being_imported():
            raise ModuleNotFoundError(
                "mmdet needs mmcv, and none is installed. Either `pip install 'mmgn[lite]'` for mmcv-lite, "
                "which needs no compiler (mmgn serves the operators of detection through torchvision), or "
                f"install {_INSTALL_COMPILED}.",
                name="mmcv",
            )
        return None


def _mmdet_is_being_imported() -> bool:
    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] == "mmdet"]
    return any(getattr(getattr(module, "__spec__", None), "_initializing", False) for module in modules)


_FINDER = _ExtensionFinder()
