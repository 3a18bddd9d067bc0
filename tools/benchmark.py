"""Measure the fused kernels on this machine's GPU, or look at their plans without one.

First the correctness gate: a wrong kernel is not timed (exit code 1). Then every contender's layers over the
shapes of Mask R-CNN R50-FPN, then whole Mask R-CNN iterations where mmdet is there. Writes one JSON and one Markdown
file named after the device; while it runs they are called .partial. Without CUDA: exit code 2, but --static and
--plan work everywhere, and --device cpu --shapes tiny tries the measuring code itself.
"""

import argparse
import time
from functools import partial
from pathlib import Path

import torch


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--static", action="store_true", help="compile for sm_80, sm_90 and sm_100 and judge the code")
    parser.add_argument("--plan", action="store_true", help="print the launch plans of the shape table")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu [cuda]")
    parser.add_argument("--shapes", choices=["table", "tiny"], default="table", help="tiny is for trying the code")
    parser.add_argument(
        "--backend",
        choices=["native", "triton"],
        help="of ours, on a CPU [native]; triton needs TRITON_INTERPRET=1. On a GPU it is triton",
    )
    parser.add_argument("--quick", action="store_true", help="float16 in four places, a short gate, AMP models only")
    parser.add_argument("--layers-only", action="store_true", help="leave the models out")
    parser.add_argument("--out", type=Path, help="folder [benchmarks/results; for a CPU work_dirs/benchmark]")
    parser.add_argument("--repeats", type=int, default=30, help="counted runs of each layer; a third of models [30]")
    parser.add_argument("--compile-seconds", type=float, help="spent on torch.compile at most [1200; 120 with --quick]")
    parser.add_argument("--no-flush", action="store_true", help="leave the L2 cache as the previous call left it")
    args = parser.parse_args()
    if args.compile_seconds is None:
        # The whole table's 96 cells take torch.compile some seconds each.
        args.compile_seconds = 120.0 if args.quick else 1200.0
    if args.repeats < 1:
        parser.error(f"--repeats must be at least 1, got {args.repeats}")
    if args.backend == "native" and args.device != "cpu":
        parser.error("--backend native is for --device cpu: on a GPU torch's own kernels have columns of their own")
    return args


def choose_device(name: str) -> torch.device:
    """Return the device asked for.

    Raises:
        SystemExit: with status 2 where there is none.
    """
    try:
        device = torch.device(name)
        if device.type == "cuda" and torch.cuda.is_available():
            torch.cuda.set_device(device.index or 0)
            return torch.device("cuda", device.index or 0)
        if device.type == "cpu":
            return device
    except RuntimeError as error:
        print(f"benchmark.py: --device {name}: {error}")
        raise SystemExit(2) from None
    print(
        f"benchmark.py: --device {name}, but torch {torch.__version__} sees no such GPU. Measuring needs an NVIDIA GPU "
        "with its driver, a torch built for CUDA, and triton; mmdet too for whole models. Without a GPU: --static "
        "compiles the kernels and judges their code, --plan prints their launch plans, and --device cpu --shapes tiny "
        "tries the measuring code on torch's own kernels (with --backend triton and TRITON_INTERPRET=1 on ours)."
    )
    raise SystemExit(2)


def main() -> None:
    """Run what was asked for."""
    started = time.monotonic()
    args = parse_args()
    if args.static or args.plan:
        from mmgn.perf import static

        raise SystemExit(static.run(plan_only=args.plan))
    device = choose_device(args.device)

    from mmgn.perf import benchmark
    from mmgn.perf.gate import WrongKernelError

    on_gpu = device.type == "cuda"
    backend = "triton" if on_gpu else args.backend or "native"
    folder = args.out or Path("benchmarks/results" if on_gpu else "work_dirs/benchmark")
    options = benchmark.Options(
        repeats=args.repeats,
        compile_seconds=args.compile_seconds,
        flush=not args.no_flush,
        tiny=args.shapes == "tiny",
        quick=args.quick,
        layers_only=args.layers_only,
    )
    try:
        path = benchmark.run(device, backend, folder, options, partial(print, flush=True))
    except WrongKernelError as error:
        raise SystemExit(f"benchmark.py: nothing is timed: {error}") from None
    print(f"{path} and {path.with_suffix('.md').name}, in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
