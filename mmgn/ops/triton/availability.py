"""Whether the fused kernels can serve a tensor here, and if not, why."""

import sys
from functools import lru_cache

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _disable_current_modes

from mmgn.ops.triton.launcher import DTYPES, interpreted

#: The oldest Triton whose compiled kernels can be launched again as the launcher does: 3.2's take other arguments then.
MIN_TRITON = (3, 3)
#: The oldest GPUs that Triton compiles for.
MIN_CAPABILITY = (7, 0)
#: Elements of a channel that its 32-bit places can count, with room for a block beyond the end.
MAX_SPATIAL = 2**30
#: Programs of a launch, of which every sample has one or more.
MAX_PROGRAMS = 2**31 - 1


def refusal(x: Tensor) -> str | None:
    """Return why the kernels cannot take x, with the way out, or None where they can."""
    if x.dtype not in DTYPES:
        return f"the kernels take float16, bfloat16 and float32, not {x.dtype}"
    if x.shape[2:].numel() > MAX_SPATIAL:
        return f"the kernels take at most {MAX_SPATIAL} elements per channel, not {x.shape[2:].numel()}"
    if x.shape[0] > MAX_PROGRAMS:
        return f"the kernels take at most {MAX_PROGRAMS} samples, not {x.shape[0]}"
    return device_refusal(x.device.type, x.device.index)


@torch.compiler.assume_constant_result
def unrecordable() -> str | None:
    """Return why what records or transforms the call cannot do so with the kernels, or None where nothing does."""
    if torch.jit.is_tracing():
        recorder = "torch.jit.trace"
    elif torch._C._functorch.peek_interpreter_stack() is not None:
        recorder = "a transform of torch.func"
    elif forward_ad._current_level >= 0:
        recorder = "forward-mode differentiation"
    # Slow to answer, and asked only where torch.export may be at work for it.
    elif torch.compiler.is_compiling() and "torch.onnx" in sys.modules and torch.onnx.is_in_onnx_export():
        recorder = "ONNX export"
    else:
        return None
    return f"{recorder} knows torch's own operators alone"


@torch.compiler.assume_constant_result
def device_refusal(device_type: str, index: int | None) -> str | None:
    """Return why the kernels cannot run on a device, or None; the first question launches a tiny kernel there."""
    return _device_refusal(device_type, index)


@lru_cache
def _device_refusal(device_type: str, index: int | None) -> str | None:
    try:
        import triton
    except ImportError as error:
        return f"Triton cannot be imported ({error}); install it with: pip install triton"
    if tuple(int(part) for part in triton.__version__.split(".")[:2]) < MIN_TRITON:
        return f"Triton {triton.__version__} is too old; the kernels need {'.'.join(map(str, MIN_TRITON))} or newer"
    if device_type == "cpu":
        if interpreted():
            return None
        return (
            "the kernels run on CUDA devices and x is on the cpu (for debugging, set TRITON_INTERPRET=1 before Python "
            "starts, which runs them there, slowly)"
        )
    if device_type != "cuda" or torch.version.hip:
        return f"the kernels run on NVIDIA GPUs, and x is on {'an AMD GPU' if device_type == 'cuda' else device_type}"
    try:
        capability = torch.cuda.get_device_capability(index)
    # A tensor that only pretends to be on a GPU, on a machine without a driver.
    except (RuntimeError, AssertionError) as error:
        return f"CUDA does not answer: {error}"
    if capability < MIN_CAPABILITY:
        return (
            f"{torch.cuda.get_device_name(index)} has compute capability {'.'.join(map(str, capability))}, "
            f"and Triton needs {'.'.join(map(str, MIN_CAPABILITY))} or newer"
        )
    return _probe(index)


def _probe(index: int | None) -> str | None:
    try:
        from mmgn.ops.triton.kernels.probe import launch

        # torch.export may be what asks first: in its mode the tensor would be a fake, at address 0.
        with torch.cuda.device(index), _disable_current_modes():
            launch(torch.empty(1, device="cuda"))
    # Whatever a compiler, a linker, a driver or a full disk may raise.
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        return (
            f"a first kernel could not be compiled and launched: {type(error).__name__}: {lines[0]}. Triton needs a C "
            "compiler and Python's headers (on Debian and Ubuntu: apt install gcc python3-dev)"
        )
    return None
