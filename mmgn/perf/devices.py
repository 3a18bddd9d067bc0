"""Figures of the GPUs the kernels are judged for without one at hand, with where each figure comes from.

* SMs, L2, DRAM bandwidth and clock: NVIDIA's data sheets and architecture white papers for A100, H100, H200 and
  GeForce RTX 4090; for B200 the HGX data sheet (8 TB/s) and what its driver reports (148 SMs, 126 MB, 1.965 GHz). The
  H100's 1.75 GHz is the lower of its published boost clocks: it holds under load.
* Limits of an SM: "Technical Specifications per Compute Capability" in the CUDA C++ Programming Guide.
* ``latency`` and ``launch_seconds`` are assumptions, the same for all: microbenchmarks report loads from DRAM at 450 to
  800 ns, more under load; kernels queued back to back start every 2 to 4 us.
"""

from dataclasses import dataclass

from mmgn.ops.triton.problem import Device


@dataclass(frozen=True)
class GPU:
    """A device, as far as the model of :mod:`mmgn.perf.model` looks at one.

    Attributes:
        name: as people call it.
        arch: compute capability without the dot.
        bandwidth: of DRAM, bytes a second.
        sm_count: streaming multiprocessors.
        l2_bytes: size of the L2 cache.
        clock: boost, cycles a second.
        shared_memory: bytes an SM has for all its blocks.
        max_warps: resident on an SM.
        max_blocks: resident on an SM.
        registers: 32-bit ones an SM has.
        latency: of a load from DRAM, seconds; an assumption.
        launch_seconds: one kernel after another; an assumption.
        issue_width: warp instructions an SM starts in a cycle, one for each of its four schedulers.
    """

    name: str
    arch: int
    bandwidth: float
    sm_count: int
    l2_bytes: int
    clock: float
    shared_memory: int
    max_warps: int = 64
    max_blocks: int = 32
    registers: int = 65536
    latency: float = 0.65e-6
    launch_seconds: float = 3e-6
    issue_width: int = 4

    @property
    def little_bytes(self) -> float:
        """Bytes an SM must have in flight to saturate DRAM: bandwidth x latency (Little's law), over the SMs."""
        return self.bandwidth * self.latency / self.sm_count

    def issue_slots(self, bytes_per_element: float) -> float:
        """Warp instructions an SM can start while DRAM moves 256 elements for it."""
        cycles = 256 * bytes_per_element / (self.bandwidth / self.sm_count / self.clock)
        return self.issue_width * cycles

    def occupancy(self, registers: int, shared: int, num_warps: int) -> int:
        """Return how many blocks of ``num_warps`` warps an SM holds at once; 0 where one does not fit.

        Registers are given out to warps by 256, from one quarter of them for each of the four schedulers; the system
        takes 1 KiB of shared memory for each block.
        """
        per_warp = -(-registers * 32 // 256) * 256
        warps = min(self.max_warps, 4 * (self.registers // 4 // max(per_warp, 1)))
        return min(self.max_blocks, warps // num_warps, self.shared_memory // (shared + 1024))

    def plan_device(self) -> Device:
        """Return what of this device a launch plan depends on."""
        return Device(l2_bytes=self.l2_bytes)


KIB, MIB = 2**10, 2**20

A100 = GPU("A100 SXM 80GB", 80, 2.039e12, 108, 40 * MIB, 1.41e9, 164 * KIB)
H100 = GPU("H100 SXM", 90, 3.35e12, 132, 50 * MIB, 1.75e9, 228 * KIB)
H200 = GPU("H200 SXM", 90, 4.8e12, 132, 50 * MIB, 1.75e9, 228 * KIB)
B200 = GPU("B200", 100, 8.0e12, 148, 126 * MIB, 1.965e9, 228 * KIB)
RTX4090 = GPU("RTX 4090", 89, 1.008e12, 128, 72 * MIB, 2.52e9, 100 * KIB, max_warps=48, max_blocks=24)

GPUS = {"a100": A100, "h100": H100, "h200": H200, "b200": B200, "rtx4090": RTX4090}
