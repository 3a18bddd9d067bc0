"""Compile kernels into Triton's cache ahead of their launch, on a machine that need not have the GPU.

The launcher itself runs, on a driver whose launches do nothing: what it would compile on the GPU it compiles here,
under the same key of the cache.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch

from mmgn.ops.triton.launcher import Call, interpreted
from mmgn.ops.triton.plan import plan_backward, plan_forward
from mmgn.ops.triton.problem import Device, Problem

#: The oldest Triton that tells of its compilations.
MIN_TRITON = (3, 4)
#: What it can compile for: compute capabilities without the dot.
ARCHITECTURES = (75, 80, 86, 89, 90, 100, 103, 120)
# An L2 smaller than any tensor and one larger: the hint on stores is all that changes with the device, and the batch.
_DEVICES = (Device(l2_bytes=0), Device(l2_bytes=2**62))


class Norm(NamedTuple):
    """A call of group norm, and which gradients it is asked for: of x, weight, bias and residual; None: none."""

    problem: Problem
    wanted: tuple[bool, bool, bool, bool] | None


class Tally:
    """Counts this process's distinct kernels: those that Triton compiled and those that its cache had."""

    def __init__(self) -> None:
        """Start counting.

        Raises:
            RuntimeError: Triton is missing, too old, or set to interpret.
        """
        self.compiled = self.found = 0
        try:
            import triton
        except ImportError as error:
            raise RuntimeError(f"Triton cannot be imported ({error}); install it with: pip install triton") from error
        if tuple(int(part) for part in triton.__version__.split(".")[:2]) < MIN_TRITON:
            raise RuntimeError(
                f"Triton {triton.__version__} does not tell what it compiles; compiling ahead takes "
                f"{'.'.join(map(str, MIN_TRITON))} or newer"
            )
        if interpreted():
            raise RuntimeError("TRITON_INTERPRET=1 has kernels interpreted, not compiled; unset it")
        triton.knobs.compilation.listener = self

    def __call__(self, *, cache_hit: bool, **_: Any) -> None:
        """Be told of a kernel by Triton."""
        self.compiled += not cache_hit
        self.found += cache_hit


class AbsentGPU:
    """What Triton asks of a GPU's driver, for a GPU that is not there."""

    def __init__(self, arch: int) -> None:
        from triton.backends.compiler import GPUTarget

        self.target = GPUTarget("cuda", arch, 32)
        self.utils = self

    def get_current_target(self) -> Any:
        """Return what to compile for."""
        return self.target

    def get_current_device(self) -> int:
        """Return the device's index."""
        return 0

    def get_current_stream(self, device: int) -> int:
        """Return a stream's handle."""
        return 0

    def get_device_properties(self, device: int) -> dict[str, int]:
        """Return limits that refuse no kernel."""
        return {"max_shared_mem": 2**31}

    def load_binary(self, *_: Any) -> tuple[None, None, int, int, int]:
        """Return module, function, registers, spills and the most threads of a block."""
        return None, None, 0, 0, 1024

    def launcher_cls(self, *_: Any) -> Any:
        """Return a launcher that launches nothing."""
        return lambda *_: None


def compile_for(arch: int, norms: Iterable[Norm]) -> None:
    """Compile all that the calls launch; from here on this process launches nothing.

    Args:
        arch: compute capability without the dot, of ``ARCHITECTURES``.
        norms: the calls; pointers are taken to be aligned, as the allocator's are.
    """
    from triton.runtime import driver

    from mmgn.ops.triton.kernels import probe

    driver.set_active(AbsentGPU(arch))
    # Before all others, by mmgn.ops.triton.availability.
    probe.launch(torch.empty(1))
    for problem, wanted in norms:
        for device in _DEVICES:
            _launch(Call(plan_forward(problem, device)))
            if wanted is not None:
                _launch(Call(plan_backward(problem, device, wanted)))


def _launch(call: Call) -> None:
    # Triton looks at dtype and alignment, no kernel at what is there.
    tensors = {name: torch.empty(1, dtype=getattr(torch, b.dtype)) for name, b in call.plan.buffers.items()}
    call.run(tensors, tensors["x"])
