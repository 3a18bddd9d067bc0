"""Pickles of weights, read without ever calling what they name, and written as Detectron's Python 2 reads them.

A pickle is a program: loading one calls whatever functions it asks for. Here it can ask for a handful of names, none of
which is numpy's own: they stand for arrays and dtypes, and check what they are given before an array is made of it.
"""

import math
import pickle
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, BinaryIO, ClassVar

import numpy as np

# Types of fixed size alone: the size of others, and what they point to, a pickle could set at will.
NUMBERS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")


class StandIn:
    """Stands for a class whose state a pickle may set."""

    def set(self, state: Any) -> None:
        """Take the state, or raise."""
        raise NotImplementedError


class Dtype(StandIn):
    """Stands for ``numpy.dtype``, of numbers."""

    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:
        if not self.takes(code):
            raise pickle.UnpicklingError(f"an array's dtype is {code!r:.40}, and only numbers are read: {NUMBERS}")
        self.dtype = np.dtype(code)

    @staticmethod
    def takes(code: Any) -> bool:
        """Whether arrays of a type are read."""
        return code in NUMBERS

    def set(self, state: Any) -> None:
        """Take the byte order; nothing else, such as the flag for objects, may differ from what the code says."""
        _, order, *rest = state
        if order not in ("<", ">", "|", "=") or rest != list(self.dtype.__reduce__()[2][2:]):
            raise pickle.UnpicklingError(f"an array's dtype is not what its code says: {state!r:.80}")
        self.dtype = self.dtype.newbyteorder(order)


class PickledArray(StandIn):
    """Stands for ``numpy.ndarray``.

    Attributes:
        array: the array, in this machine's byte order and writable.
    """

    array: np.ndarray

    def set(self, state: Any) -> None:
        """Take shape, dtype and data as ``numpy.ndarray.__setstate__`` does."""
        _, shape, dtype, fortran, data = state
        self._fill(data, dtype, shape, "F" if fortran else "C")

    def _fill(self, data: Any, dtype: Any, shape: Any, order: Any) -> None:
        # Python 2 stored bytes as a string; the unpickler read it as latin1.
        raw = data.encode("latin1") if isinstance(data, str) else data
        sized = isinstance(shape, tuple) and all(type(side) is int and side >= 0 for side in shape)
        if not (sized and isinstance(dtype, Dtype) and isinstance(raw, bytes | bytearray)):
            raise pickle.UnpicklingError("an array's shape, dtype or data is not what numpy writes")
        if order not in ("C", "F"):
            raise pickle.UnpicklingError(f"an array's memory order is {order!r:.40}, and only C and F are read")
        if len(raw) != math.prod(shape) * dtype.dtype.itemsize:
            raise pickle.UnpicklingError(f"an array of shape {shape} and dtype {dtype.dtype} has {len(raw)} bytes")
        flat = np.array(np.frombuffer(raw, dtype.dtype), dtype.dtype.newbyteorder("="))
        self.array = flat.reshape(shape, order=order)


def _reconstruct(*_: Any) -> PickledArray:
    return PickledArray()


def _scalar(dtype: Any, data: Any) -> Any:
    one = PickledArray()
    one._fill(data, dtype, (), "C")
    return one.array[()]


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> PickledArray:
    made = PickledArray()
    made._fill(data, dtype, shape, order)
    return made


def _no_bytes() -> bytes:
    return b""


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes are encoded as {encoding!r:.40}, and only latin1 is read")
    return text.encode("latin1")


_GLOBALS: dict[str, Any] = {
    "collections.OrderedDict": dict,
    "_codecs.encode": _encode,
    # Protocol 2 has no bytes: Python 3 encodes a string, or calls bytes().
    "__builtin__.bytes": _no_bytes,
    "numpy.ndarray": PickledArray,
    "numpy.dtype": Dtype,
}
# numpy 2 moved these: files of either numpy are read.
for _core in ("numpy.core", "numpy._core"):
    _GLOBALS[f"{_core}.multiarray._reconstruct"] = _reconstruct
    _GLOBALS[f"{_core}.multiarray.scalar"] = _scalar
    _GLOBALS[f"{_core}.numeric._frombuffer"] = _from_buffer


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
        if not isinstance(target, StandIn):
            raise pickle.UnpicklingError(f"it sets the attributes of a {type(target).__name__}")
        target.set(state)

    dispatch[pickle.BUILD[0]] = load_build


def load(file: BinaryIO, names: Mapping[str, Any] = MappingProxyType({})) -> Any:
    """Read a pickle of numpy arrays, numbers, strings and plain containers.

    Args:
        file: opened for reading, of protocol 2 or later; Python 2 may have written it.
        names: what a pickle may ask for beyond that, by its full name, with what stands for it.

    Returns:
        The object, with a :class:`PickledArray` for each array and a dict for an OrderedDict.

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
