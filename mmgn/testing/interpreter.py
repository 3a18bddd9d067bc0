"""What Triton kernels touch, as the interpreter runs them: bytes per argument, byte ranges per program, bounds, races.

Tensor arguments enter a kernel with their number among the arguments in the 16 pointer bits that no address uses, as
memory-tagging sanitizers do; loads and stores read the number and take it off. So every access is known by the argument
its pointer came from, and one that leaves that argument is found however far it goes and whatever lies there.
"""

import inspect
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

ADDRESS_BITS = 48
ATOMICS = ("create_atomic_cas", "create_atomic_rmw", "create_atomic_load", "create_atomic_store", "create_atomic_poll")


class Access(NamedTuple):
    """Bytes next to each other that one load or store of one program touched; no byte twice."""

    program: tuple[int, int, int]
    argument: str
    first_byte: int
    num_bytes: int
    is_write: bool


class Extent(NamedTuple):
    """Where a tensor argument lies, from its first to its last element."""

    address: int
    num_bytes: int


@dataclass
class RecordedLaunch:
    """One kernel launch; every number of bytes is by the kernel's own argument names, and of active lanes only.

    Attributes:
        kernel: the function's name.
        grid: programs along x, y, z.
        extents: the tensor arguments.
        loaded: bytes loaded; lanes that load the same address count each.
        stored: bytes stored, likewise.
        accesses: in the order in which the programs, one after another, made them.
    """

    kernel: str
    extents: dict[str, Extent]
    grid: tuple[int, int, int] = (0, 0, 0)
    loaded: Counter[str] = field(default_factory=Counter)
    stored: Counter[str] = field(default_factory=Counter)
    accesses: list[Access] = field(default_factory=list)

    def assert_no_race(self) -> None:
        """Assert that no program writes a byte that another program of this launch reads or writes.

        Raises:
            AssertionError: naming the two programs and the address; the interpreter, one program at a time, shows none.
        """
        spans = sorted((self.extents[a.argument].address + a.first_byte, a) for a in self.accesses)
        # Ascending, disjoint: first byte, byte after the last, the access that owns it.
        written: list[tuple[int, int, Access]] = []
        for start, access in spans:
            if not access.is_write:
                continue
            end = start + access.num_bytes
            if written and start < written[-1][1]:
                first, last, owner = written.pop()
                self._assert_same_program(owner, access, start)
                start, end = first, max(last, end)
            written.append((start, end, access))
        for start, access in spans:
            index = bisect_right(written, start, key=lambda span: span[0]) - 1
            for first, last, owner in written[max(index, 0) :]:
                if first >= start + access.num_bytes:
                    break
                if last > start:
                    self._assert_same_program(owner, access, max(first, start))

    def _assert_same_program(self, writer: Access, other: Access, address: int) -> None:
        if writer.program != other.program:
            byte = address - self.extents[other.argument].address
            raise AssertionError(
                f"{self.kernel}: program {writer.program} writes byte {byte} of {other.argument}, which program "
                f"{other.program} {'writes' if other.is_write else 'reads'} in the same launch, in no order"
            )


@contextmanager
def record_traffic() -> Iterator[list[RecordedLaunch]]:
    """Record every launch of an interpreted Triton kernel in the block, and check its accesses against its arguments.

    Example::

        with record_traffic() as launches:
            kernel[(4,)](x, y, x.numel(), BLOCK=128)
        assert launches[0].loaded["x_ptr"] == x.nbytes

    Yields:
        the launches so far, in order.

    Raises:
        AssertionError: at a load or store of an active lane outside the tensor argument that its pointer came from,
            before it is made; names kernel, program, argument and byte. Also at an atomic operation.
        RuntimeError: Triton was imported without TRITON_INTERPRET=1, so kernels are compiled and nothing is seen.
    """
    import triton.language
    from triton.runtime import interpreter

    if not isinstance(triton.language.sum, interpreter.InterpretedFunction):
        raise RuntimeError(
            "record_traffic sees interpreted kernels only, and Triton compiles in this process; set TRITON_INTERPRET=1 "
            "in the environment before triton is first imported"
        )
    recorder = _Recorder(interpreter)
    builder = interpreter.interpreter_builder
    hooks: list[tuple[Any, str, Callable]] = [
        (interpreter.GridExecutor, "__call__", recorder.run),
        (interpreter.GridExecutor, "_init_args_hst", recorder.enter),
        (interpreter, "_implicit_cvt", recorder.convert),
        (builder, "create_masked_load", recorder.load),
        (builder, "create_masked_store", recorder.store),
        *((builder, name, recorder.atomic) for name in ATOMICS if hasattr(builder, name)),
    ]
    with ExitStack() as stack:
        for owner, name, hook in hooks:
            stack.enter_context(mock.patch.object(owner, name, _around(getattr(owner, name), hook)))
        yield recorder.launches


def _around(original: Callable, hook: Callable) -> Callable:
    return lambda *args, **kwargs: hook(original, *args, **kwargs)


class _Recorder:
    """What runs in place of the interpreter's functions; each method takes the one that it stands for first."""

    def __init__(self, interpreter: ModuleType) -> None:
        self.interpreter = interpreter
        self.launches: list[RecordedLaunch] = []
        self.tags: dict[int, int] = {}

    @property
    def launch(self) -> RecordedLaunch:
        return self.launches[-1]

    def run(self, original: Callable, executor: Any, *args: Any, **kwargs: Any) -> None:
        try:
            original(executor, *args, **kwargs)
        except self.interpreter.InterpreterError as error:
            # The interpreter wraps what a kernel raises, once more for each function the kernel calls.
            cause: BaseException | None = error
            while isinstance(cause, self.interpreter.InterpreterError):
                cause = cause.__cause__
            if isinstance(cause, AssertionError):
                raise cause from None
            raise
        self.launch.grid = self.interpreter.interpreter_builder.grid_dim

    def enter(self, original: Callable, executor: Any, *args: Any) -> Any:
        positional, keywords = original(executor, *args)
        tensors = {
            argument: tensor
            for name, value in inspect.getcallargs(executor.fn, *positional, **keywords).items()
            for argument, tensor in _tensors(name, value)
        }
        self.launches.append(
            RecordedLaunch(executor.fn.__name__, {argument: _extent(tensor) for argument, tensor in tensors.items()})
        )
        # From 1 on: a pointer made of no argument has 0.
        self.tags = {id(tensor): tag for tag, tensor in enumerate(tensors.values(), 1)}
        return positional, keywords

    def convert(self, original: Callable, value: Any) -> Any:
        converted = original(value)
        if hasattr(value, "data_ptr"):
            converted.handle.data |= np.uint64(self.tags[id(_plain(value))] << ADDRESS_BITS)
        return converted

    def load(self, original: Callable, pointers: Any, mask: Any, *rest: Any, **kwargs: Any) -> Any:
        self._touch(pointers, mask, is_write=False)
        return original(self._untagged(pointers), mask, *rest, **kwargs)

    def store(self, original: Callable, pointers: Any, value: Any, mask: Any, *rest: Any, **kwargs: Any) -> Any:
        self._touch(pointers, mask, is_write=True)
        return original(self._untagged(pointers), value, mask, *rest, **kwargs)

    def atomic(self, original: Callable, *args: Any) -> None:
        raise AssertionError(
            f"{self.launch.kernel} uses an atomic operation, whose order and traffic the interpreter does not show; "
            "write partial results and combine them in a second launch"
        )

    def _untagged(self, pointers: Any) -> Any:
        plain = pointers.data & np.uint64(2**ADDRESS_BITS - 1)
        return self.interpreter.TensorHandle(plain, pointers.dtype)

    def _touch(self, pointers: Any, mask: Any, *, is_write: bool) -> None:
        # Booleans are stored as bytes.
        itemsize = max(pointers.get_element_ty().primitive_bitwidth // 8, 1)
        addresses = pointers.data[np.broadcast_to(mask.data, pointers.data.shape)]
        tags = addresses >> np.uint64(ADDRESS_BITS)
        for tag in np.unique(tags).tolist():
            self._touch_argument(tag, addresses[tags == tag], itemsize, is_write)

    def _touch_argument(self, tag: int, addresses: np.ndarray, itemsize: int, is_write: bool) -> None:
        launch, program = self.launch, self.interpreter.interpreter_builder.grid_idx
        where = f"{launch.kernel}, program {program}: {'store to' if is_write else 'load from'}"
        if not 1 <= tag <= len(launch.extents):
            raise AssertionError(f"{where} {int(addresses[0]):#x}, an address made of no tensor argument")
        argument, extent = list(launch.extents.items())[tag - 1]
        base = np.uint64((tag << ADDRESS_BITS) + extent.address)
        offsets = np.unique((addresses - base).view(np.int64))
        outside = offsets[(offsets < 0) | (offsets + itemsize > extent.num_bytes)]
        if outside.size:
            byte = int(outside[0])
            place = f"{-byte} bytes before its first" if byte < 0 else f"{byte - extent.num_bytes} bytes past its last"
            raise AssertionError(
                f"{where} {argument} at byte {byte}, {place}: {argument} has {extent.num_bytes} bytes, the access "
                f"{itemsize} a lane, and {outside.size} such addresses"
            )
        (launch.stored if is_write else launch.loaded)[argument] += itemsize * addresses.size
        for run in np.split(offsets, np.flatnonzero(np.diff(offsets) > itemsize) + 1):
            first, length = int(run[0]), int(run[-1] - run[0]) + itemsize
            launch.accesses.append(Access(program, argument, first, length, is_write))


def _tensors(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the tensors in a kernel's argument, a tuple's as ``name[index]``."""
    if isinstance(value, tuple):
        for index, member in enumerate(value):
            yield from _tensors(f"{name}[{index}]", member)
    elif hasattr(_plain(value), "data_ptr"):
        yield name, _plain(value)


def _plain(value: Any) -> Any:
    """Return the tensor in Triton's TensorWrapper or TensorDescriptor, both of which call it ``base``."""
    return getattr(value, "base", value)


def _extent(tensor: Any) -> Extent:
    steps = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return Extent(tensor.data_ptr(), (steps + 1) * tensor.element_size() if tensor.numel() else 0)
