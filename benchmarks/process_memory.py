"""The memory of this process, as Linux tells it."""

from pathlib import Path


def restart_peak() -> None:
    """Forget the peak of memory so far (proc(5))."""
    Path("/proc/self/clear_refs").write_text("5")


def resident_mib(key: str) -> float:
    """Return the resident set's size, ``VmRSS``, or its peak, ``VmHWM``."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024
