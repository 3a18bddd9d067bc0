"""What a pickle names as numpy's, checked before numpy sees it: dtypes, arrays and scalars.

numpy takes the state of a dtype as it is told: what its parts are, and whether it holds references. An array of such a
dtype reaches into memory that is not its own. With numpy's own names on the allow-list of
``torch.load(weights_only=True)``, as mmengine's checkpoints need them, a file could end in a segmentation fault.
"""

import math
import pickle
from typing import Any

import numpy as np

#: Types of fixed size alone: the size of others, and what they point to, a pickle could set at will.
NUMBERS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")


class Dtype:
    """Stands for ``numpy.dtype``, of numbers.

    Attributes:
        dtype: numpy's own.
    """

    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:
        if not isinstance(code, str) or not self.takes(code):
            raise pickle.UnpicklingError(f"an array's dtype is {code!r:.40}, and only numbers are read: {NUMBERS}")
        self.dtype = np.dtype(code)

    @staticmethod
    def takes(code: str) -> bool:
        """Whether arrays of a type are read."""
        return code in NUMBERS

    def __reduce__(self) -> Any:
        return self.dtype.__reduce__()

    def __setstate__(self, state: Any) -> None:
        """Take the byte order; nothing else, such as the flag for objects, may differ from what the code says."""
        _, order, *rest = state
        if order not in ("<", ">", "|", "=") or rest != list(self.dtype.__reduce__()[2][2:]):
            raise pickle.UnpicklingError(f"an array's dtype is not what its code says: {state!r:.80}")
        self.dtype = self.dtype.newbyteorder(order)


class ComplexDtype(Dtype):
    """Stands for ``numpy.dtype``, of numbers and of complex ones."""

    @staticmethod
    def takes(code: str) -> bool:
        """Whether arrays of a type are read."""
        return code in (*NUMBERS, "c8", "c16")


class Array(np.ndarray):
    """Stands for ``numpy.ndarray``, and is one, in this machine's byte order and writable; pickled as numpy's own."""

    def __new__(cls, *args: Any) -> "Array":
        """Refuse to be called: pickles name it, and call :func:`reconstruct`."""
        raise pickle.UnpicklingError("it calls numpy.ndarray, which makes an array of any size and content")

    def __setstate__(self, state: Any) -> None:
        """Take shape, dtype and data as ``numpy.ndarray.__setstate__`` does."""
        _, shape, dtype, fortran, data = state
        flat = _checked(data, dtype, shape)
        super().__setstate__((1, shape, flat.dtype, bool(fortran), flat.tobytes()))  # type: ignore[arg-type]

    def __reduce__(self) -> Any:
        return np.asarray(self).__reduce__()

    def __array_wrap__(self, array: Any, *_: Any) -> Any:
        """Have what is computed of it be numpy's own, a number of its own kind included."""
        plain = np.asarray(array)
        return plain if plain.ndim else plain[()]


def reconstruct(kind: Any, shape: Any, code: Any) -> Array:
    """Stand for ``numpy._core.multiarray._reconstruct``, of an array whose state is set after that."""
    if shape != (0,) or code not in (b"b", "b"):
        raise pickle.UnpicklingError(f"it makes an array of {shape!r:.40} and {code!r:.40}, and not one to be filled")
    return np.ndarray.__new__(Array, (0,))


def no_bytes() -> bytes:
    """Stand for ``bytes``, which protocol 2 has no opcode for: those of an array of nothing are called for."""
    return b""


def scalar(dtype: Any, data: Any) -> Any:
    """Stand for ``numpy._core.multiarray.scalar``."""
    return _checked(data, dtype, ())[0]


def from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    """Stand for ``numpy._core.numeric._frombuffer``."""
    if order not in ("C", "F"):
        raise pickle.UnpicklingError(f"an array's memory order is {order!r:.40}, and only C and F are read")
    return _checked(data, dtype, shape).reshape(shape, order=order)


def _checked(data: Any, dtype: Any, shape: Any) -> np.ndarray:
    """Return an array's numbers one after the other, in this machine's byte order."""
    # Python 2 stored bytes as a string; the unpickler read it as latin1.
    raw = data.encode("latin1") if isinstance(data, str) else data
    # numpy has room for 32 sides, or 64, and looks at no more.
    sized = isinstance(shape, tuple) and len(shape) <= 32 and all(type(n) is int and 0 <= n < 2**62 for n in shape)
    if not (sized and isinstance(dtype, Dtype) and isinstance(raw, bytes | bytearray)):
        raise pickle.UnpicklingError("an array's shape, dtype or data is not what numpy writes")
    # Of nothing too, strides are of all sides.
    if math.prod(max(n, 1) for n in shape) * dtype.dtype.itemsize >= 2**62:
        raise pickle.UnpicklingError(f"an array of shape {shape} is larger than any memory")
    if len(raw) != math.prod(shape) * dtype.dtype.itemsize:
        raise pickle.UnpicklingError(f"an array of shape {shape} and dtype {dtype.dtype} has {len(raw)} bytes")
    return np.array(np.frombuffer(raw, dtype.dtype), dtype.dtype.newbyteorder("="))
