"""A model of a plan's time on a GPU, that can be wrong. Every figure from here is called modelled.

A launch takes one of two times, the longer, stretched by its last wave, and what it costs to start a kernel:

1. DRAM bytes after the simulated L2 (:mod:`mmgn.perf.cache`), at the bandwidth of the data sheet. Bytes that hit in
   L2 are free.
2. Bytes in flight: the loads that a warp issues before it waits for one, counted in the SASS, times the warps
   resident on an SM. Below Little's law (bandwidth x latency / SMs) bandwidth is lost in proportion. The figure shown,
   and asked for, is of 128-bit loads alone.
3. Waves: as many programs run at once as occupancy allows. The last wave has fewer; it takes its share of a wave's
   time, but no less than what its bytes in flight can pull: see ``Launched.tail``.
4. Launches, at a fixed cost each.
5. Instructions of the hot loops, or of the whole kernel where there is none, at four a clock and SM.

The sum of a backward plan's partials, which is torch's own kernel, is a launch at full bandwidth, as the kernels of
others are (:mod:`mmgn.perf.baselines`).
"""

import math
from dataclasses import dataclass, replace

from mmgn.ops.triton.footprint import ACTIVATIONS, Access, footprint
from mmgn.ops.triton.plan import Launch, Plan
from mmgn.ops.triton.problem import ITEMSIZE
from mmgn.perf import cache
from mmgn.perf.devices import GPU
from mmgn.perf.sass import WIDE, Code


@dataclass(frozen=True)
class Launched:
    """One launch on a GPU.

    Attributes:
        launch: of the plan.
        code: compiled.
        gpu: the device.
        traffic: DRAM bytes after the simulated L2.
    """

    launch: Launch
    code: Code
    gpu: GPU
    traffic: cache.Traffic

    @property
    def moved(self) -> int:
        """Bytes loaded and stored, before L2."""
        return sum(b for _, b in self.launch.reads + self.launch.writes)

    @property
    def loaded(self) -> int:
        """Bytes loaded of activations and partial sums; numbers for each channel or group stay in L1."""
        return sum(b for name, b in self.launch.reads if name in (*ACTIVATIONS, "partials"))

    @property
    def dram(self) -> int:
        """Bytes moved between L2 and DRAM."""
        return self.traffic.read + self.traffic.written

    @property
    def wide(self) -> bool:
        """Whether 128-bit accesses can have moved all that is loaded and stored of the activations."""
        return all(
            self._carried(kind) >= sum(b for name, b in declared if name in ACTIVATIONS)
            for kind, declared in (("loads", self.launch.reads), ("stores", self.launch.writes))
        )

    def _carried(self, kind: str) -> float:
        """Bytes of the 128-bit loads or stores; a loop's carry as many as it likes, if each loop has some."""
        counts = [getattr(region, f"wide_{kind}") for region in self.code.hot if getattr(region, kind)]
        if self.code.loops:
            return math.inf if counts and all(counts) else 0
        return self.launch.programs * self.launch.num_warps * WIDE * sum(counts)

    @property
    def width(self) -> int:
        """Bits of the widest accesses; where 128-bit ones cannot have moved the activations, of the widest others."""
        widths = [bits for region in self.code.hot for bits, _ in region.loads + region.stores]
        return max((bits for bits in widths if self.wide or bits < 128), default=0)

    @property
    def blocks(self) -> int:
        """Programs an SM can hold at once."""
        return self.gpu.occupancy(self.code.registers, self.code.shared, self.launch.num_warps)

    @property
    def occupancy(self) -> float:
        """Share of an SM's warps that its programs can fill."""
        return self.blocks * self.launch.num_warps / self.gpu.max_warps

    @property
    def resident(self) -> float:
        """Warps of an SM: of the programs it can hold, or has, if there are fewer."""
        return min(self.blocks, self.launch.programs / self.gpu.sm_count) * self.launch.num_warps

    @property
    def in_flight(self) -> float:
        """Bytes of 128-bit loads an SM has in flight."""
        return self.resident * self.code.in_flight

    @property
    def tiny(self) -> bool:
        """Whether all it loads is less than twice what the device must have in flight to saturate DRAM."""
        return self.loaded < 2 * self.gpu.little_bytes * self.gpu.sm_count

    @property
    def waves(self) -> float:
        """Programs, in units of what the device can hold at once."""
        return self.launch.programs / (self.gpu.sm_count * self.blocks)

    @property
    def tail(self) -> float:
        """Share of the launch's time that its last wave wastes, where there is more than one.

        A last wave with a share f of the programs has f of the bytes to move. Its programs are fewer, so it takes f of
        a wave's time only if they still saturate DRAM, and at least r = Little's bytes / bytes in flight of a full SM.
        """
        full, f = divmod(self.waves, 1)
        if self.waves <= 1 or not f:
            return 0.0
        last = max(f, min(1.0, self.gpu.little_bytes / max(self.in_flight, 1)))
        return (last - f) / (full + last)

    @property
    def instructions(self) -> float:
        """Warp instructions: of the whole kernel, with its hot loops as often as a warp's bytes ask for."""
        warps = self.launch.programs * self.launch.num_warps
        count = float(self.code.body.instructions)
        if self.code.loops:
            bits = sum(n * width for region in self.code.hot for width, n in region.loads + region.stores)
            trips = max(self.moved / warps / (bits * WIDE / 128), 1.0)
            count += (trips - 1) * sum(region.instructions for region in self.code.hot)
        return warps * count

    @property
    def seconds(self) -> float:
        """Modelled time."""
        flying = max(self.in_flight, self.resident * self.code.any_in_flight)
        memory = self.dram / self.gpu.bandwidth / min(1.0, flying / self.gpu.little_bytes) if self.dram else 0.0
        issue = self.instructions / (self.gpu.issue_width * self.gpu.sm_count * self.gpu.clock)
        return self.gpu.launch_seconds + max(memory, issue) / (1 - self.tail)


@dataclass(frozen=True)
class Modelled:
    """A plan on a GPU."""

    plan: Plan
    gpu: GPU
    launches: tuple[Launched, ...]

    @property
    def moved(self) -> int:
        """Bytes loaded and stored, before L2."""
        return sum(launched.moved for launched in self.launches) + sum(self.plan.summed)

    @property
    def dram(self) -> int:
        """Bytes moved between L2 and DRAM; what torch sums up is taken not to be in L2 any more."""
        return sum(launched.dram for launched in self.launches) + sum(self.plan.summed)

    @property
    def instructions(self) -> float:
        """Warp instructions for 256 elements, of the launches that walk the activations."""
        walks = [each for each in self.launches if any(name in ACTIVATIONS for name, _ in each.launch.reads)]
        return 256 * sum(each.instructions for each in walks) / self.plan.problem.numel

    @property
    def issue_slots(self) -> float:
        """Warp instructions that can start while DRAM moves 256 elements of the launches."""
        return self.gpu.issue_slots(sum(each.dram for each in self.launches) / self.plan.problem.numel)

    @property
    def seconds(self) -> float:
        """Modelled time."""
        return sum(launched.seconds for launched in self.launches) + self.summing

    @property
    def summing(self) -> float:
        """Modelled time of torch's sum of the partials."""
        moved = sum(self.plan.summed)
        return self.gpu.launch_seconds + moved / self.gpu.bandwidth if moved else 0.0


def model(plan: Plan, gpu: GPU, codes: list[Code]) -> Modelled:
    """Return what a plan costs on a GPU; ``codes`` are of its launches, compiled for the GPU's architecture."""
    sizes = {name: buffer.numel * ITEMSIZE[buffer.dtype] for name, buffer in plan.buffers.items()}
    walks = []
    for launch, code in zip(plan.launches, codes, strict=True):
        resident = gpu.sm_count * gpu.occupancy(code.registers, code.shared, launch.num_warps)
        walks.append(_walk(plan, launch, code, resident))
    traffic = cache.simulate(walks, sizes, gpu.l2_bytes)
    launched = (Launched(*each) for each in zip(plan.launches, codes, [gpu] * len(codes), traffic, strict=True))
    return Modelled(plan, gpu, tuple(launched))


def _walk(plan: Plan, launch: Launch, code: Code, resident: int) -> cache.Walk:
    # Partial sums come in runs of a few bytes: an even share for each program is as good, and 100 times as quick.
    reads, writes = (tuple(x for x in moved if x[0] in ACTIVATIONS) for moved in (launch.reads, launch.writes))
    streamed = replace(launch, reads=reads, writes=writes)
    shares = [k for k, moved in enumerate((launch.reads, launch.writes)) if "partials" in dict(moved)]

    def accesses(program: int) -> list[Access]:
        return footprint(plan, streamed, program) + [_partials(plan, launch, program, bool(k)) for k in shares]

    return cache.Walk(
        launch.programs,
        resident,
        accesses,
        # A hint on one load counts for all: what a plan loads in its last pass, nobody reads again.
        loads_give_way=any(region.loads_give_way for region in code.hot),
        stores_give_way=any(region.stores_give_way for region in code.hot),
    )


def _partials(plan: Plan, launch: Launch, program: int, write: bool) -> Access:
    buffer = plan.buffers["partials"]
    size = buffer.numel * ITEMSIZE[buffer.dtype]
    first, end = (size * k // launch.programs for k in (program, program + 1))
    return "partials", first, end - first, 1, end - first, write
