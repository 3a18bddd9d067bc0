"""What a call costs the host: Python time per call of the fused backend, the launches themselves left out.

    python benchmarks/host_overhead.py --out benchmarks/results/host_overhead_cpu.json

Beside it, torch's own group norm + ReLU on a tensor so small that computing it is nearly nothing. No GPU takes part:
checks, plan look-up, allocation and arguments are run, and in place of a launch an empty function is called. Triton's
own launcher comes on top of it, once per launch.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

# The kernels may then be asked for on the CPU; none is run.
os.environ["TRITON_INTERPRET"] = "1"

import torch
import torch.nn.functional as F
from torch import Tensor

from mmgn import __version__, group_norm
from mmgn.compat import environment
from mmgn.ops.triton import launcher

#: Name, shape, groups: a plan of one launch each way, and one of three. The numbers in them do not matter.
SHAPES = [("whole", (1, 32, 2, 2), 8), ("split", (1, 32, 128, 128), 8)]


class Unlaunched(launcher._Step):
    """A step that stops short of its launch."""

    def __init__(self, launch: launcher.Launch, buffers: Mapping[str, launcher.Buffer]) -> None:
        super().__init__(launch, buffers)
        self.repeat = lambda *arguments: None


def measure(calls: dict[str, Callable[[], object]], runs: int, repeats: int) -> dict[str, float]:
    """Return the median microseconds of each call, round-robin."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            call()
            start = time.perf_counter()
            for _ in range(runs):
                call()
            seconds[name].append((time.perf_counter() - start) / runs)
    return {name: round(statistics.median(values) * 1e6, 1) for name, values in seconds.items()}


def calls(shape: tuple[int, ...], groups: int) -> dict[str, Callable[[], object]]:
    """Return what is timed; torch gets the small tensor whatever the shape."""
    inputs = {}
    for name, size in (("ours", shape), ("torch", SHAPES[0][1])):
        x = torch.randn(size, requires_grad=True)
        inputs[name] = (x, torch.ones(32, requires_grad=True), torch.zeros(32, requires_grad=True), torch.randn(size))

    def ours(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return group_norm(x, groups, w, b, activation="relu", backend="triton")

    def theirs(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return F.relu(F.group_norm(x, groups, w, b))

    def both(op: Callable[..., Tensor], x: Tensor, w: Tensor, b: Tensor, dy: Tensor) -> None:
        op(x, w, b).backward(dy)
        x.grad = w.grad = b.grad = None

    return {
        "ours_forward": lambda: ours(*inputs["ours"][:3]),
        "torch_forward": lambda: theirs(*inputs["torch"][:3]),
        "ours_forward_backward": lambda: both(ours, *inputs["ours"]),
        "torch_forward_backward": lambda: both(theirs, *inputs["torch"]),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000, help="calls per repeat [1000]")
    parser.add_argument("--repeats", type=int, default=15, help="repeats, whose median counts [15]")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    launcher._Step = Unlaunched  # type: ignore[misc]
    rows = []
    for name, shape, groups in SHAPES:
        rows.append({"plan": name, **measure(calls(shape, groups), args.runs, args.repeats)})
        print(rows[-1], flush=True)
    report = {
        "what": "host microseconds per call, medians, launches left out, measured; torch computes a tiny tensor",
        "cpu": environment.collect()["system"]["cpu"],
        "runs": args.runs,
        "repeats": args.repeats,
        "torch": torch.__version__,
        "mmgn": __version__,
        "rows": rows,
    }
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
