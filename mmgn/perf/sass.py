"""Read what the assembler made of a kernel.

SASS has no public grammar; what is read here is: an instruction's name and widths (``LDG.E.128``), its registers (the
first operand is written, the rest are read, a store reads all), branch targets, and the resource line.
"""

import re
from collections import Counter
from dataclasses import dataclass

#: Bytes that a warp moves with one 128-bit access a thread: the widest on all architectures but the latest.
WIDE = 512

INSTRUCTION = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P[0-9T]+\s+)?([A-Z][\w.]*)\s*(.*?)\s*;", re.MULTILINE)
RESOURCES = re.compile(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")
REGISTER = re.compile(r"\bR(\d+)")
BACKWARD_TARGET = re.compile(r"0x([0-9a-f]+)$")


@dataclass(frozen=True)
class Region:
    """A stretch of code: a loop's body, or the whole kernel.

    Attributes:
        instructions: in it, without padding.
        loads: (bits of a thread, count) of loads from global memory.
        stores: the same of stores.
        in_flight: bytes that a warp's 128-bit loads have under way at most, before one of them is waited for.
        any_in_flight: the same of loads of all widths.
        calls: of subroutines, such as 64-bit division; their instructions are not counted.
        loads_give_way: some 128-bit ones carry the hint ``evict_first``.
        stores_give_way: likewise.
    """

    instructions: int
    loads: tuple[tuple[int, int], ...]
    stores: tuple[tuple[int, int], ...]
    in_flight: int
    any_in_flight: int
    calls: int
    loads_give_way: bool = False
    stores_give_way: bool = False

    @property
    def wide_loads(self) -> int:
        """Loads of at least 128 bits, in units of 128."""
        return sum(bits // 128 * count for bits, count in self.loads)

    @property
    def wide_stores(self) -> int:
        """Stores of at least 128 bits, in units of 128."""
        return sum(bits // 128 * count for bits, count in self.stores)


@dataclass(frozen=True)
class Code:
    """A compiled kernel.

    Attributes:
        registers: of a thread.
        shared: bytes of shared memory of a block, without what the system takes.
        stack: bytes of local memory of a thread: arrays and spilled registers.
        spills: instructions that access local memory.
        body: the whole kernel.
        loops: innermost loops.
    """

    registers: int
    shared: int
    stack: int
    spills: int
    body: Region
    loops: tuple[Region, ...]

    @property
    def hot(self) -> tuple[Region, ...]:
        """The innermost loops that access global memory; the whole kernel where there is none."""
        return tuple(loop for loop in self.loops if loop.loads or loop.stores) or (self.body,)

    @property
    def in_flight(self) -> int:
        """Bytes of 128-bit loads that a warp has under way, in the hot region where they are fewest."""
        return min((region.in_flight for region in self.hot if region.loads), default=0)

    @property
    def any_in_flight(self) -> int:
        """Bytes of all loads that a warp has under way, in the hot region where they are fewest."""
        return min((region.any_in_flight for region in self.hot if region.loads), default=0)


@dataclass(frozen=True)
class Instruction:
    """One line of a listing: its address, name and operands."""

    address: int
    name: str
    operands: str

    @property
    def bits(self) -> int:
        """Width of a memory access of one thread; 32 where the name has none."""
        for part in reversed(self.name.split(".")[1:]):
            if part in ("128", "64", "256"):
                return int(part)
            if part in ("U8", "S8", "U16", "S16"):
                return int(part[1:])
        return 32

    @property
    def written(self) -> set[int]:
        """Numbers of the registers a load writes."""
        first = REGISTER.match(self.operands)
        return set(range(int(first[1]), int(first[1]) + max(self.bits // 32, 1))) if first else set()

    @property
    def read(self) -> set[int]:
        """Numbers of the registers it names as sources."""
        stores = self.name.startswith(("ST", "RED", "LDGSTS"))
        sources = self.operands if stores else self.operands.partition(",")[2]
        return {int(n) for n in REGISTER.findall(sources)}


def _bytes_in_flight(code: list[Instruction], repeats: int, least: int) -> int:
    """Follow loads of at least ``least`` bits to the first use of their registers; return the peak in bytes of a warp.

    The code is gone through ``repeats`` times. Loads return in order here: waiting for one waits for all before it. Of
    copies to shared memory (LDGSTS), ``DEPBAR.LE SB0, n`` leaves n groups under way.
    """
    loads: list[tuple[set[int], int]] = []
    groups: list[int] = [0]
    peak = 0
    for instruction in code * repeats:
        reads = instruction.read
        used = [k for k, (registers, _) in enumerate(loads) if registers & reads]
        if used:
            del loads[: used[-1] + 1]
        name = instruction.name.partition(".")[0]
        if name == "LDG" and instruction.bits >= least:
            loads.append((instruction.written, instruction.bits))
        elif name == "LDGSTS" and instruction.bits >= least:
            groups[-1] += instruction.bits
        elif name == "LDGDEPBAR":
            groups.append(0)
        elif name == "DEPBAR":
            left = int(instruction.operands.rpartition(",")[2].strip(), 0)
            groups = groups[max(len(groups) - 1 - left, 0) :]
        peak = max(peak, sum(bits for _, bits in loads) + sum(groups))
    return peak * WIDE // 128


def _region(code: list[Instruction], loop: bool) -> Region:
    loads = Counter(i.bits for i in code if i.name.startswith("LDG") and not i.name.startswith("LDGDEPBAR"))
    stores = Counter(i.bits for i in code if i.name.startswith("STG"))
    # Twice, as a loop's loads may be used in its next iteration only.
    repeats = 2 if loop else 1
    return Region(
        instructions=len(code),
        loads=tuple(sorted(loads.items())),
        stores=tuple(sorted(stores.items())),
        in_flight=_bytes_in_flight(code, repeats, 128),
        any_in_flight=_bytes_in_flight(code, repeats, 0),
        calls=sum(i.name.startswith("CALL") for i in code),
        loads_give_way=any(i.name.startswith("LDG.E.EF.") and i.bits >= 128 for i in code),
        stores_give_way=any(i.name.startswith("STG.E.EF.") and i.bits >= 128 for i in code),
    )


def parse(listing: str, shared: int) -> Code:
    """Read a listing of ``cuobjdump -sass -res-usage``; ``shared`` is the dynamic shared memory Triton asks for.

    Raises:
        ValueError: where it is no listing of one kernel.
    """
    resources = RESOURCES.search(listing)
    code = [Instruction(int(a, 16), n, o) for a, n, o in INSTRUCTION.findall(listing) if n != "NOP"]
    if not resources or not code:
        raise ValueError(f"this is not what cuobjdump -sass -res-usage prints for a kernel: {listing[:200]!r}")
    spans = []
    for instruction in code:
        target = BACKWARD_TARGET.search(instruction.operands) if instruction.name.startswith("BRA") else None
        # A branch to itself is the trap behind the kernel's end.
        if target and int(target[1], 16) < instruction.address:
            spans.append((int(target[1], 16), instruction.address))
    innermost = [s for s in spans if not any(t != s and s[0] <= t[0] and t[1] <= s[1] for t in spans)]
    loops = [_region([i for i in code if start <= i.address <= end], loop=True) for start, end in innermost]
    registers, stack, _, local = map(int, resources.groups())
    return Code(
        registers=registers,
        shared=shared,
        stack=stack + local,
        spills=sum(i.name.startswith(("LDL", "STL")) for i in code),
        body=_region([i for i in code if i.name != "BRA" or not i.operands.endswith(f"0x{i.address:x}")], loop=False),
        loops=tuple(loops),
    )
