import time

import pytest
import torch

from mmgn.perf import timing

CPU = torch.device("cpu")


def test_median_and_quartiles_are_of_the_counted_runs():
    durations = iter([0.5, 0.5, 0.02, 0.08, 0.04, 0.06, 0.10])
    timings, failures = timing.measure({"nap": lambda: time.sleep(next(durations))}, CPU, repeats=5, warmup=2)
    assert not failures
    nap = timings["nap"]
    # sleep() may last longer, never shorter.
    assert 0.06 <= nap.median < 0.08
    assert 0.04 <= nap.low < 0.06
    assert 0.08 <= nap.high < 0.10
    assert nap.host == nap.median


def test_calls_take_turns_and_the_order_changes():
    seen = []
    calls = {name: (lambda name=name: seen.append(name)) for name in "abc"}
    timing.measure(calls, CPU, repeats=3, warmup=1)
    assert "".join(seen) == "abc" + "abc" + "bca" + "cab"


def test_a_failing_call_drops_out_with_its_reason():
    runs = []

    def late():
        runs.append(1)
        if len(runs) > 3:
            raise RuntimeError("out of luck\nsecond line")

    def never():
        raise torch.cuda.OutOfMemoryError("80 GiB wanted")

    timings, failures = timing.measure({"late": late, "never": never, "fine": lambda: None}, CPU, repeats=4, warmup=1)
    assert list(timings) == ["fine"]
    assert failures == {"late": "RuntimeError: out of luck", "never": "OutOfMemoryError: 80 GiB wanted"}


def test_a_single_run_has_a_spread_of_nothing():
    timings, _ = timing.measure({"one": lambda: None}, CPU, repeats=1, warmup=1)
    one = timings["one"]
    assert one.low == one.median == one.high


def test_nothing_counts_memory_on_a_cpu():
    assert timing.peak_bytes(lambda: torch.zeros(1000), CPU) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
class TestOnDevice:
    device = torch.device("cuda", 0)

    def test_device_time_leaves_the_host_out(self):
        x = torch.zeros(1000, device=self.device)

        def slow_host():
            time.sleep(0.01)
            x.add_(1)

        timings, failures = timing.measure({"slow host": slow_host}, self.device, repeats=5)
        assert not failures
        assert timings["slow host"].host > 0.01
        assert timings["slow host"].median < 1e-3

    def test_wall_time_holds_both(self):
        x = torch.zeros(1000, device=self.device)
        timings, _ = timing.measure({"work": lambda: (time.sleep(0.01), x.add_(1))}, self.device, repeats=3, wall=True)
        assert timings["work"].median > 0.01

    def test_a_flushed_cache_costs(self):
        x, y = torch.zeros(2, 2**20, device=self.device)
        medians = []
        for flush in (False, True):
            timings, _ = timing.measure({"copy": lambda: y.copy_(x)}, self.device, flush=flush)
            medians.append(timings["copy"].median)
        assert medians[1] > medians[0]

    def test_peak_counts_what_the_call_allocates(self):
        kept = torch.zeros(2**20, device=self.device)
        peak = timing.peak_bytes(lambda: (kept + 1) * 2, self.device)
        assert 2 * kept.nbytes <= peak < 3 * kept.nbytes
