"""How a tensor is cut into programs: blocks, warps, and what follows for the bytes loaded. Pure Python.

The cut of a group depends on its size, the dtype and the layout, never on N or on the device.
"""

import math
from dataclasses import dataclass

from mmgn.ops.triton.problem import Problem

#: Bytes of the widest memory access of a thread.
VECTOR_BYTES = 16
#: The largest group that a program keeps in registers: 16 values a thread at 16 warps.
WHOLE_ELEMENTS = 8192
#: Bytes each thread of a streaming program has in flight: four 128-bit loads.
BYTES_PER_THREAD = 64
#: What the cut counts on of a compiled program: registers of a thread, of which an SM then holds 16 warps, and bytes of
#: shared memory, through which sums cross warps.
REGISTERS = 128
SHARED_BYTES = 2048
#: Bytes of a cache line: what a channels_last program reads of a pixel.
LINE_BYTES = 128


def power_of_two(n: int) -> int:
    """Return the least power of two that is not less than n."""
    return 1 << max(n - 1, 0).bit_length()


def _vector(limit: int, *divisible: int) -> int:
    """Return the largest power of two up to ``limit`` that divides all numbers given."""
    v = 1
    while v * 2 <= limit and all(n % (v * 2) == 0 for n in divisible):
        v *= 2
    return v


def _warps(elements: int, per_thread: int) -> int:
    return max(1, min(16, power_of_two(elements // (32 * per_thread))))


def _per_thread(p: Problem, inputs: int) -> int:
    """Return the elements of each tensor that a thread holds, so that it has BYTES_PER_THREAD or more in flight.

    Sums over pixels cross threads column by column in channels_last: the fewer threads, the fewer instructions.
    """
    return BYTES_PER_THREAD // p.itemsize // (1 if p.layout == "channels_last" else min(inputs, 2))


@dataclass(frozen=True)
class _Rows:
    """How a contiguous tensor is read; see ``mmgn.ops.triton.kernels.cover``."""

    v: int
    even: bool
    #: Rows that cover a channel, at most.
    rows: int

    @classmethod
    def of(cls, p: Problem) -> "_Rows":
        v = _vector(min(VECTOR_BYTES // p.itemsize, p.s), p.m)
        # A channel starts at a multiple of gcd(S, V).
        head = v - _vector(v, p.s)
        return cls(v, p.s % v == 0, -(-(head + p.s) // v))

    def covered(self, p: Problem) -> int:
        """Return the bytes of all rows that cover all channels: those that two channels share count twice."""
        period = self.v // _vector(self.v, p.s)
        rows = [-(-(nc * p.s % self.v + p.s) // self.v) for nc in range(period)]
        full, rest = divmod(p.n * p.c, period)
        return (full * sum(rows) + sum(rows[:rest])) * self.v * p.itemsize


@dataclass(frozen=True)
class Tile:
    """How streaming kernels cut a group: arguments of the kernels, and what the bytes they move follow from."""

    chunks: int
    programs: int
    num_warps: int
    scalars: tuple[tuple[str, int], ...]
    constants: tuple[tuple[str, int | bool], ...]
    #: Loads of a per-channel parameter, in all programs.
    per_channel: int
    #: Loads of a per-group number, in all programs.
    per_group: int
    #: Bytes of a tensor of x's size, as loaded.
    bytes: int


def _contiguous_tile(p: Problem, inputs: int) -> Tile:
    rows = _Rows.of(p)
    per_thread = _per_thread(p, inputs)
    budget = 128 * per_thread // rows.v
    best, block_d, block_r = math.inf, 1, budget
    for size in range(4, budget.bit_length()):
        r = 1 << size
        d = min(power_of_two(p.d), budget // r)
        programs = -(-p.d // d) * -(-rows.rows // r)
        # Rows computed in vain cost as much as others, a program about as much as 64 rows, a channel as 4.
        cost = programs * (d * r + 64 + 4 * d)
        if cost <= best:
            best, block_d, block_r = cost, d, r
    chunks = -(-rows.rows // block_r)
    programs = p.n * p.groups * -(-p.d // block_d) * chunks
    return Tile(
        chunks=chunks,
        programs=programs,
        num_warps=_warps(block_d * block_r * rows.v, per_thread),
        scalars=(
            ("groups", p.groups),
            ("chunks", chunks),
            ("chunk_rows", -(-rows.rows // chunks)),
            ("D", p.d),
            ("S", p.s),
        ),
        constants=(("V", rows.v), ("BLOCK_D", block_d), ("BLOCK_R", block_r), ("EVEN", rows.even)),
        per_channel=p.n * p.c * chunks * (1 if rows.even else 2 * block_r),
        per_group=programs,
        bytes=rows.covered(p),
    )


@dataclass(frozen=True)
class _Columns:
    """How the channels of a channels_last tensor are cut; see ``mmgn.ops.triton.kernels.columns``."""

    v: int
    block_g: int
    block_d: int
    subs: int

    @classmethod
    def of(cls, p: Problem, columns: int) -> "_Columns":
        d = power_of_two(p.d)
        limit = VECTOR_BYTES // p.itemsize
        block_d = min(d, max(columns, 512))
        block_g = max(1, min(columns // block_d, power_of_two(p.groups)))
        plain = d == p.d and block_d == d
        return cls(_vector(limit, p.c) if plain else _vector(limit, p.d), block_g, block_d, -(-p.d // block_d))

    @property
    def width(self) -> int:
        return self.block_g * self.block_d

    def blocks(self, p: Problem) -> int:
        return -(-p.groups // self.block_g) * self.subs

    def constants(self, p: Problem) -> tuple[tuple[str, int], ...]:
        return (("D", p.d), ("V", self.v), ("BLOCK_G", self.block_g), ("BLOCK_D", self.block_d))


def _channels_last_tile(p: Problem, inputs: int) -> Tile:
    columns = _Columns.of(p, LINE_BYTES // p.itemsize)
    per_thread = _per_thread(p, inputs)
    pixels = max(1, min(128 * per_thread // columns.width, power_of_two(p.s)))
    chunks = -(-p.s // pixels)
    return Tile(
        chunks=chunks,
        programs=p.n * chunks * columns.blocks(p),
        num_warps=_warps(pixels * columns.width, per_thread),
        scalars=(("groups", p.groups), ("chunks", chunks), ("S", p.s)),
        constants=(*columns.constants(p), ("BLOCK_P", pixels), ("SUBS", columns.subs)),
        per_channel=p.n * p.c * chunks,
        per_group=p.n * p.c * chunks,
        bytes=p.numel * p.itemsize,
    )


def statistics_tile(p: Problem) -> Tile:
    """Return how the first pass of the forward direction cuts the groups; it has no use for channels."""
    if p.layout == "channels_last":
        return _channels_last_tile(p, 1)
    v = _vector(VECTOR_BYTES // p.itemsize, p.m)
    rows, block_r = p.m // v, 128 * _per_thread(p, 1) // v
    chunks = -(-rows // block_r)
    return Tile(
        chunks=chunks,
        programs=p.n * p.groups * chunks,
        num_warps=4,
        scalars=(("chunks", chunks), ("rows", rows), ("chunk_rows", -(-rows // chunks))),
        constants=(("V", v), ("BLOCK_R", block_r)),
        per_channel=0,
        per_group=0,
        bytes=p.numel * p.itemsize,
    )


def tile(p: Problem, inputs: int) -> Tile:
    """Return how streaming kernels that read ``inputs`` tensors of x's size cut the groups."""
    return _contiguous_tile(p, inputs) if p.layout == "contiguous" else _channels_last_tile(p, inputs)


def whole_tile(p: Problem, inputs: int) -> Tile | None:
    """Return how whole groups are taken on chip, or None where a group does not fit."""
    per_thread = _per_thread(p, inputs)
    if p.layout == "contiguous":
        rows = _Rows.of(p)
        block_d, block_r = power_of_two(p.d), power_of_two(rows.rows)
        elements = block_d * block_r * rows.v
        if elements > WHOLE_ELEMENTS:
            return None
        # A warp for small groups, several warps for one large group.
        block_g = max(1, min(32 * per_thread // elements, power_of_two(p.groups)))
        programs = p.n * -(-p.groups // block_g)
        return Tile(
            chunks=1,
            programs=programs,
            num_warps=_warps(block_g * elements, per_thread),
            scalars=(("groups", p.groups), ("D", p.d), ("S", p.s)),
            constants=(
                ("V", rows.v),
                ("BLOCK_G", block_g),
                ("BLOCK_D", block_d),
                ("BLOCK_R", block_r),
                ("EVEN", rows.even),
                ("WIDE", p.n * p.c >= 2**31),
            ),
            per_channel=p.n * p.c * (1 if rows.even else 2 * block_r),
            per_group=p.n * p.groups,
            bytes=rows.covered(p),
        )
    pixels = power_of_two(p.s)
    width = LINE_BYTES // p.itemsize
    # Half or a quarter of a line, a whole sector at least, where that makes a group fit; more where pixels are few.
    while pixels * width > WHOLE_ELEMENTS and width * p.itemsize > 32:
        width //= 2
    while pixels * width < 32 * per_thread and width < p.c:
        width *= 2
    columns = _Columns.of(p, width)
    if columns.subs > 1 or pixels * columns.width > WHOLE_ELEMENTS:
        return None
    return Tile(
        chunks=1,
        programs=p.n * columns.blocks(p),
        num_warps=_warps(pixels * columns.width, per_thread),
        scalars=(("groups", p.groups), ("S", p.s)),
        constants=(*columns.constants(p), ("BLOCK_P", pixels)),
        per_channel=p.n * p.c,
        per_group=p.n * p.c,
        bytes=p.numel * p.itemsize,
    )
