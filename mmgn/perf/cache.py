"""A simulated L2 cache: which of a plan's bytes reach DRAM.

The programs of a launch run in waves: as many as the device holds at once walk their accesses in step, then the next
ones. Their accesses go through one fully associative LRU cache of the device's size, which all launches of a plan
share and which starts empty. A real L2 is neither fully associative nor LRU, and an A100's or H100's has two halves
that keep copies of each other's lines: this is the best the walk of a plan can get, and good for comparing walks.

The unit is a tile rather than a line, so that a table of shapes is simulated in seconds: a run of bytes, or, in a
tensor that is read in columns, lines of 128 bytes one below the other.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest

from mmgn.ops.triton.footprint import Access

TILE = 16384
LINE = 128

#: A tile: its buffer, row and column.
Tile = tuple[str, int, int]


@dataclass(frozen=True)
class Walk:
    """The accesses of one launch.

    Attributes:
        programs: how many.
        resident: how many run at once.
        accesses: what one program touches, by its number.
        loads_give_way: they carry the hint to put what they read out first (``evict_first``).
        stores_give_way: likewise.
    """

    programs: int
    resident: int
    accesses: Callable[[int], Iterable[Access]]
    loads_give_way: bool = False
    stores_give_way: bool = False


@dataclass
class Traffic:
    """Bytes that a launch moves between L2 and DRAM; what it leaves in L2 to be written later is its own."""

    read: int = 0
    written: int = 0


def simulate(walks: Iterable[Walk], sizes: Mapping[str, int], l2_bytes: int, tile: int = TILE) -> list[Traffic]:
    """Run launches one after another through an empty cache.

    Args:
        walks: of the launches, in order.
        sizes: of the buffers, in bytes.
        l2_bytes: capacity of the cache.
        tile: bytes of a tile.

    Returns:
        The traffic of each launch. Tiles that are written are not read first: programs write whole lines.

    Raises:
        ValueError: where a buffer is read in columns by more than one width of a row.
    """
    walks = list(walks)
    cache = _Cache(_strides(walks), sizes, l2_bytes, tile, [Traffic() for _ in walks])
    for k, walk in enumerate(walks):
        for first in range(0, walk.programs, max(walk.resident, 1)):
            wave = range(first, min(first + max(walk.resident, 1), walk.programs))
            steps = [[t for access in walk.accesses(program) for t in cache.touches(access)] for program in wave]
            for step in zip_longest(*steps):
                for touch in step:
                    if touch:
                        place, part, write = touch
                        cache.touch(k, place, part, write, walk.stores_give_way if write else walk.loads_give_way)
    cache.flush()
    return cache.traffic


@dataclass(slots=True)
class _Held:
    """A tile in the cache: bytes of it that are there, that are newer than DRAM's, and who wrote last."""

    present: int = 0
    dirty: int = 0
    writer: int = 0


class _Cache:
    def __init__(
        self, strides: dict[str, int], sizes: Mapping[str, int], l2_bytes: int, tile: int, traffic: list[Traffic]
    ):
        self.strides, self.sizes, self.traffic = strides, sizes, traffic
        self.capacity = max(l2_bytes // tile, 1)
        self.run, self.rows = tile, tile // LINE
        # The least recently used first.
        self.held: OrderedDict[Tile, _Held] = OrderedDict()

    def touches(self, access: Access) -> Iterator[tuple[Tile, int, bool]]:
        """Yield the tiles of an access with the bytes of each, and whether it is a write."""
        buffer, first, row_bytes, rows, row_stride, write = access
        if row_stride == row_bytes:
            row_bytes, rows = row_bytes * rows, 1
        if not (stride := self.strides.get(buffer, 0)):
            for start in range(first, first + rows * row_stride, row_stride) if rows > 1 else (first,):
                for tile, size in _cut(start, start + row_bytes, self.run):
                    yield (buffer, tile, 0), size, write
            return
        if rows == 1:
            top, bottom, left, right = first // stride, -(-(first + row_bytes) // stride), 0, stride
        else:
            top, left = divmod(first, stride)
            bottom, right = top + rows, left + row_bytes
        for row, height in _cut(top, bottom, self.rows):
            for column, width in _cut(left, right, LINE):
                yield (buffer, row, column), height * width, write

    def touch(self, launch: int, tile: Tile, part: int, write: bool, gives_way: bool) -> None:
        """Use a part of a tile; bring in what is missing; put out the least recently used tile if there is no room."""
        held = self.held.get(tile)
        if held is None:
            if len(self.held) >= self.capacity:
                self.put_out(*self.held.popitem(last=False))
            held = self.held[tile] = _Held()
        size = self.bytes(tile)
        missing = min(part, size - held.present)
        held.present += missing
        if write:
            held.dirty = min(held.dirty + part, size)
            held.writer = launch
        else:
            self.traffic[launch].read += missing
        self.held.move_to_end(tile, last=not gives_way)

    def put_out(self, tile: Tile, held: _Held) -> None:
        """Write back what was written."""
        self.traffic[held.writer].written += held.dirty

    def flush(self) -> None:
        """Write everything back."""
        while self.held:
            self.put_out(*self.held.popitem())

    def bytes(self, tile: Tile) -> int:
        """Return the bytes of a tile that are in its buffer."""
        buffer, row, column = tile
        size = self.sizes[buffer]
        if not (stride := self.strides.get(buffer, 0)):
            return min(self.run, size - row * self.run)
        return min(LINE, stride - column * LINE) * min(self.rows, size // stride - row * self.rows)


def _cut(start: int, end: int, unit: int) -> Iterator[tuple[int, int]]:
    """Yield the units that [start, end) touches, and how much of each."""
    for k in range(start // unit, -(-end // unit)):
        yield k, min(end, (k + 1) * unit) - max(start, k * unit)


def _strides(walks: list[Walk]) -> dict[str, int]:
    """Return the bytes from row to row of the buffers that some program reads in columns."""
    found: dict[str, set[int]] = defaultdict(set)
    for walk in walks:
        for program in {0, walk.programs - 1} if walk.programs else ():
            for buffer, _, row_bytes, rows, row_stride, _ in walk.accesses(program):
                if rows > 1 and row_stride != row_bytes:
                    found[buffer].add(row_stride)
    for buffer, strides in found.items():
        if len(strides) > 1:
            raise ValueError(f"{buffer} is walked in columns with rows of {sorted(strides)} bytes; one width is needed")
    return {buffer: strides.pop() for buffer, strides in found.items()}
