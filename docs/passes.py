"""Draw docs/passes.png: the passes over memory of group norm + ReLU, from the launch plans themselves.

python docs/passes.py
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from mmgn.ops.triton.plan import Plan, plan_backward, plan_forward
from mmgn.ops.triton.problem import Device, Problem
from mmgn.perf import baselines

ACTIVATIONS = ("x", "y", "dy", "dx")
READ, WRITE = "#8fb8de", "#e0915f"


def of_plan(plan: Plan) -> list[list[tuple[str, str]]]:
    """Return each launch's passes, as (tensor, colour)."""
    return [
        [(name, READ) for name, _ in launch.reads if name in ACTIVATIONS]
        + [(name, WRITE) for name, _ in launch.writes if name in ACTIVATIONS]
        for launch in plan.launches
    ]


def of_kernels(kernels: list[baselines.Kernel]) -> list[list[tuple[str, str]]]:
    """Likewise for the kernels that torch launches."""
    return [[(n, READ) for n, _ in k.reads] + [(n, WRITE) for n, _ in k.writes] for k in kernels]


def main() -> None:
    """Draw."""
    large = Problem(2, 256, 200 * 336, 32, activation="relu")
    small = Problem(1024, 256, 7 * 7, 32, activation="relu")
    rows = [
        ("forward", "torch eager", of_kernels(baselines.eager_forward(large))),
        ("", "mmgn, large groups", of_plan(plan_forward(large, Device()))),
        ("", "mmgn, small groups", of_plan(plan_forward(small, Device()))),
        ("backward", "torch eager", of_kernels(baselines.eager_backward(large))),
        ("", "mmgn, large groups", of_plan(plan_backward(large, Device()))),
        ("", "mmgn, small groups", of_plan(plan_backward(small, Device()))),
    ]
    figure, axes = plt.subplots(figsize=(9, 3.1))
    for k, (direction, name, kernels) in enumerate(rows):
        y, x = -k - (0.5 if k > 2 else 0), 0.0
        axes.text(-4.6, y, direction, va="center", weight="bold", fontsize=10)
        axes.text(-0.2, y, name, va="center", ha="right", fontsize=10)
        for kernel in (kernel for kernel in kernels if kernel):
            for tensor, colour in kernel:
                axes.barh(y, 0.94, left=x, height=0.72, color=colour)
                axes.text(x + 0.47, y, tensor, va="center", ha="center", fontsize=9)
                x += 1
            x += 0.25
        passes = sum(map(len, kernels))
        axes.text(x + 0.1, y, f"{passes} passes", va="center", fontsize=10)
    handles = [plt.Rectangle((0, 0), 1, 1, color=c) for c in (READ, WRITE)]
    axes.legend(handles, ["read", "write"], loc="lower right", frameon=False, fontsize=9)
    axes.set(xlim=(-4.7, 12), ylim=(-6.1, 0.6))
    axes.axis("off")
    figure.tight_layout(pad=0.3)
    figure.savefig(Path(__file__).with_name("passes.png"), dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
