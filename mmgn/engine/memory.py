"""How much memory a run takes: CUDA's allocator where there is a GPU, the process elsewhere."""

import contextlib
import sys
from pathlib import Path
from typing import Any

import torch


def device_of(runner: Any) -> torch.device:
    """Return the device of a runner's model."""
    return next((p.device for p in runner.model.parameters()), torch.device("cpu"))


def memory_kind(device: torch.device) -> str:
    """Return what :func:`peak_memory_mb` counts there."""
    return "CUDA allocated" if device.type == "cuda" else "process RSS"


def restart_peak(device: torch.device) -> None:
    """Begin a new peak; of a process there is a way to on Linux alone."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        # As proc(5) has it; a container may not.
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mb(device: torch.device) -> float | None:
    """Return the peak of memory in MiB, None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    # On Linux getrusage(2) has the peak of the process that started this one, too, and does not restart.
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 2**10
    try:
        import resource
    except ImportError:  # Windows
        return None
    # ru_maxrss is in bytes on macOS and in KiB elsewhere (getrusage(2)).
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
