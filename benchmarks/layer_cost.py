"""What FusedGN costs beside nn.GroupNorm: forward + backward, interleaved in one process, medians.

    python benchmarks/layer_cost.py --out benchmarks/results/layer_cost_cpu.json

Each shape is checked against nn.GroupNorm before it is timed; a wrong layer gets no figure.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from torch import nn

from mmgn import FusedGN, __version__
from mmgn.compat import environment

SHAPES = [(2, 64, 32, 32), (2, 256, 28, 28), (128, 256, 7, 7), (2, 64, 112, 112), (2, 256, 100, 168)]


def measure(shape: tuple[int, ...], runs: int) -> dict[str, object]:
    """Return the median seconds of both layers and the median of the pairwise ratios."""
    layers = {"FusedGN": FusedGN(shape[1]), "GroupNorm": nn.GroupNorm(32, shape[1])}
    x = torch.randn(shape, requires_grad=True)
    dy = torch.randn(shape)
    results = []
    for layer in layers.values():
        x.grad = None
        y = layer(x)
        y.backward(dy)
        results.append((y, x.grad, layer.weight.grad, layer.bias.grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)

    seconds: dict[str, list[float]] = {name: [] for name in layers}
    for i in range(runs + runs // 10):
        # Who goes first alternates, so that neither always finds the other's data in the cache.
        for name in sorted(layers, reverse=i % 2 == 0):
            start = time.perf_counter()
            layers[name](x).backward(dy)
            if i >= runs // 10:
                seconds[name].append(time.perf_counter() - start)
    ratios = [a / b for a, b in zip(*seconds.values(), strict=True)]
    medians = {f"{name}_us": round(statistics.median(values) * 1e6, 1) for name, values in seconds.items()}
    return {"shape": shape, **medians, "ratio": round(statistics.median(ratios), 3)}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=400, help="counted runs of each layer per shape [400]")
    parser.add_argument("--threads", type=int, default=1, help="torch threads [1]")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cpu = environment.collect()["system"]["cpu"]
    rows = []
    for shape in SHAPES:
        rows.append(measure(shape, args.runs))
        print(rows[-1], flush=True)
    report = {
        "what": "forward + backward, float32, medians, FusedGN / nn.GroupNorm, measured",
        "cpu": cpu,
        "threads": args.threads,
        "runs": args.runs,
        "torch": torch.__version__,
        "mmgn": __version__,
        "rows": rows,
    }
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
