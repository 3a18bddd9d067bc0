"""Pickles of weights, read without ever calling what they name, and written as Detectron's Python 2 reads them.

A pickle is a program: loading one calls whatever functions it asks for. Here it can ask for a handful of names, none of
which is numpy's own: they stand for arrays and dtypes, and check what they are given before an array is made of it.
"""

import pickle
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, BinaryIO, ClassVar

from mmgn.compat.arrays import Array, Dtype, from_buffer, no_bytes, reconstruct, scalar


class StandIn:
    """Stands for a class whose state a pickle may set."""

    def __setstate__(self, state: Any) -> None:
        """Take the state, or raise."""
        raise NotImplementedError


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes are encoded as {encoding!r:.40}, and only latin1 is read")
    return text.encode("latin1")


_GLOBALS: dict[str, Any] = {
    "collections.OrderedDict": dict,
    "_codecs.encode": _encode,
    # Protocol 2 has no bytes: Python 3 encodes a string, or calls bytes().
    "__builtin__.bytes": no_bytes,
    "numpy.ndarray": Array,
    "numpy.dtype": Dtype,
}
# numpy 2 moved these: files of either numpy are read.
for _core in ("numpy.core", "numpy._core"):
    _GLOBALS[f"{_core}.multiarray._reconstruct"] = reconstruct
    _GLOBALS[f"{_core}.multiarray.scalar"] = scalar
    _GLOBALS[f"{_core}.numeric._frombuffer"] = from_buffer


# Python's own implementation, not C's: with that one a few bytes can ask for gigabytes (its memo is a table).
class _Unpickler(pickle._Unpickler):
    stack: list[Any]
    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: BinaryIO, names: Mapping[str, Any]) -> None:
        super().__init__(file, encoding="latin1")
        self._names = {**_GLOBALS, **names}

    def find_class(self, module: str, name: str) -> Any:
        found = self._names.get(f"{module}.{name}")
        if found is None:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which may run code; only numpy arrays of numbers and plain containers "
                "are read. Do not use the file unless you trust where it comes from"
            )
        return found

    def load_build(self) -> None:
        """Set a stand-in's state; Python's own sets any attribute of any object."""
        state = self.stack.pop()
        target = self.stack[-1]
        if not isinstance(target, (StandIn, Dtype, Array)):
            raise pickle.UnpicklingError(f"it sets the attributes of a {type(target).__name__}")
        target.__setstate__(state)

    dispatch[pickle.BUILD[0]] = load_build


def load(file: BinaryIO, names: Mapping[str, Any] = MappingProxyType({})) -> Any:
    """Read a pickle of numpy arrays, numbers, strings and plain containers.

    Args:
        file: opened for reading, of protocol 2 or later; Python 2 may have written it.
        names: what a pickle may ask for beyond that, by its full name, with what stands for it.

    Returns:
        The object, with a dict for an OrderedDict.

    Raises:
        pickle.UnpicklingError: it asks for anything else, or its arrays are not in order.
        Exception: of any kind, where the bytes are no pickle.
    """
    return _Unpickler(file, names).load()


class _Pickler(pickle._Pickler):
    write: Any
    memoize: Any

    def save_global(self, obj: Any, name: str | None = None) -> None:
        # numpy 2 moved the function; both numpy 1 and 2 find it under its old name.
        if getattr(obj, "__module__", None) == "numpy._core.multiarray" and obj.__name__ == "_reconstruct":
            self.write(b"cnumpy.core.multiarray\n_reconstruct\n")
            self.memoize(obj)
        else:
            super().save_global(obj, name)  # type: ignore[misc]


def dump(content: Any, file: BinaryIO) -> None:
    """Write a pickle that Python 2 and numpy 1 read too, as Detectron's own are: protocol 2."""
    _Pickler(file, protocol=2).dump(content)
