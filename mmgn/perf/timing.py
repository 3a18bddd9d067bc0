"""Medians to trust: contenders in turn, cold caches, and the host kept out of the device's time."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

Call = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Seconds of one call: the median with its quartiles, and the median time until the call returned to the host."""

    median: float
    low: float
    high: float
    host: float


class _CpuClock:
    """Wall time of calls that are done when they return."""

    def __call__(self, call: Call, lead: float) -> tuple[float, float]:
        start = time.perf_counter()
        call()
        seconds = time.perf_counter() - start
        return seconds, seconds


class _WallClock:
    """Wall time from an idle device to an idle device: what a training loop pays for a whole iteration."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __call__(self, call: Call, lead: float) -> tuple[float, float]:
        torch.cuda.synchronize(self.device)
        start = time.perf_counter()
        call()
        host = time.perf_counter() - start
        torch.cuda.synchronize(self.device)
        return time.perf_counter() - start, host


class _EventClock:
    """Time on the device alone, between two events."""

    def __init__(self, device: torch.device, flush: bool) -> None:
        self.device = device
        l2_bytes = getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 64 * 2**20)
        # Four times the cache.
        self.evictor = torch.zeros(l2_bytes, dtype=torch.int32, device=device) if flush else None

    def __call__(self, call: Call, lead: float) -> tuple[float, float]:
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        if self.evictor is not None:
            # Read, not written: the call would pay for writing dirty lines back.
            self.evictor.max()
        # The device spins while the host queues the whole call, so that no gap between launches is measured; a
        # cycle lasts at least half a nanosecond.
        torch.cuda._sleep(int(2e9 * lead))
        before.record()
        start = time.perf_counter()
        call()
        host = time.perf_counter() - start
        after.record()
        after.synchronize()
        return before.elapsed_time(after) * 1e-3, host


def reason(error: BaseException) -> str:
    """Say in one line why a contender has no figure."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def measure(
    calls: Mapping[str, Call],
    device: torch.device,
    *,
    repeats: int = 30,
    warmup: int = 3,
    flush: bool = True,
    wall: bool = False,
) -> tuple[dict[str, Timing], dict[str, str]]:
    """Time calls in turn, round after round, so that a drifting clock touches all of them alike.

    Args:
        calls: what to time, by name. A call that raises drops out, the others go on.
        device: where the calls run. On a CPU always by the wall clock.
        repeats: counted rounds.
        warmup: rounds before them, at least 1; compilation and the allocator's growth stay there.
        flush: evict the L2 cache before each run of a CUDA call, as a network's other layers would.
        wall: time the host's part and synchronisation too, from idle to idle, in place of the device alone.

    Returns:
        The timings, and for each call that raised the reason.
    """
    if device.type == "cpu":
        clock: Callable[[Call, float], tuple[float, float]] = _CpuClock()
    else:
        clock = _WallClock(device) if wall else _EventClock(device, flush)
    failures: dict[str, str] = {}
    lead = {}
    for name, call in calls.items():
        try:
            lead[name] = _warm_up(call, device, warmup)
        except Exception as error:
            failures[name] = reason(error)

    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in lead}
    for i in range(repeats):
        names = [name for name in samples if name not in failures]
        # Who follows whom changes too.
        for name in names[i % len(names) :] + names[: i % len(names)] if names else []:
            try:
                samples[name].append(clock(calls[name], lead[name]))
            except Exception as error:
                failures[name] = reason(error)
    return {name: _summary(runs) for name, runs in samples.items() if name not in failures}, failures


def _warm_up(call: Call, device: torch.device, rounds: int) -> float:
    """Return twice the seconds that the host needs for a call, at most 50 ms."""
    host = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        host.append(time.perf_counter() - start)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    return min(2 * min(host) + 5e-5, 0.05)


def _summary(runs: list[tuple[float, float]]) -> Timing:
    seconds = [run[0] for run in runs]
    low, _, high = statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else seconds * 3
    return Timing(statistics.median(seconds), low, high, statistics.median(run[1] for run in runs))


def peak_bytes(call: Call, device: torch.device) -> int | None:
    """Return the bytes a call holds at its worst beyond those held before it; None on a CPU: nothing counts them."""
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before
