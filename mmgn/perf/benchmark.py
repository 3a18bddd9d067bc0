"""The whole benchmark: check, measure layers, then models, and write as it goes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mmgn.ops import explain
from mmgn.perf import gate, layers, results, training
from mmgn.perf.contenders import DTYPES
from mmgn.perf.shapes import SHAPES, Shape
from mmgn.perf.workload import TINY_WORKLOAD, Workload

TINY = (Shape("tiny", 2, 64, 5, 7), Shape("tiny out", 2, 64, 4, 6, residual=True), Shape("tiny RoIs", 4, 64, 7, 7))
QUICK = ("stem", "res2 out", "res4 out", "box head")


@dataclass(frozen=True)
class Options:
    """How much to measure.

    Attributes:
        repeats: counted runs of each layer; models have a third of them.
        compile_seconds: what torch.compile may take over all places.
        flush: evict the L2 cache before each run of a layer.
        tiny: layers and a model to try the code with; the figures mean nothing.
        quick: float16 in four places, AMP alone for models, fewer cases in the gate.
        layers_only: no models.
    """

    repeats: int = 30
    compile_seconds: float = 1200.0
    flush: bool = True
    tiny: bool = False
    quick: bool = False
    layers_only: bool = False

    @property
    def suffix(self) -> str:
        """What a result's name says, so that it never passes for, or overwrites, one of another kind."""
        return "".join(f"_{name}" for name in ("tiny", "quick", "layers_only") if getattr(self, name))

    @property
    def places(self) -> tuple[Shape, ...]:
        """Where to measure layers."""
        if self.tiny:
            return TINY
        return tuple(shape for shape in SHAPES if shape.name in QUICK) if self.quick else SHAPES


def run(
    device: torch.device, backend: str, folder: Path, options: Options, say: Callable[[str], object] = print
) -> Path:
    """Run the benchmark.

    Args:
        device: where to measure.
        backend: of ours.
        folder: where the results go.
        options: how much to measure.
        say: takes lines for people.

    Returns:
        The JSON file's path; the Markdown file lies beside it.

    Raises:
        WrongKernelError: a kernel is wrong; no result is left.
    """
    machine = results.describe(device)
    name = results.stem(machine, options.suffix)
    say(f"{machine['device']}, torch {machine['torch']}: checking backend {backend!r}")
    checked = gate.check(device, backend, quick=options.quick or options.tiny)
    report: dict[str, Any] = {
        "machine": machine,
        "settings": {
            "backend": backend,
            "repeats": options.repeats,
            "l2_flushed": options.flush and device.type == "cuda",
            "compile_seconds": options.compile_seconds,
        },
        "gate": f"{checked} cases right with backend {backend!r}, and each timed cell before it was timed",
        "layers": [],
        "models": {"reason": "--layers-only" if options.layers_only else "the run ended before them"},
        "iterations": [],
    }
    try:
        _measure_layers(
            report, device, backend, options, lambda: results.write(report, folder, name, complete=False), say
        )
    except gate.WrongKernelError:
        results.discard(folder, name)
        raise
    if not options.layers_only:
        _measure_models(report, device, options, lambda: results.write(report, folder, name, complete=False), say)
    return results.write(report, folder, name, complete=True)


def _measure_layers(
    report: dict[str, Any],
    device: torch.device,
    backend: str,
    options: Options,
    save: Callable[[], object],
    say: Callable[[str], object],
) -> None:
    dtypes = ("float16",) if options.quick else tuple(DTYPES)
    how = {"repeats": options.repeats, "flush": options.flush, "compile_seconds": options.compile_seconds}
    for row in layers.measure(device, backend, options.places, dtypes, **how):
        report["layers"].append(row)
        save()
        figures = row.get("ratios") or row.get("reason")
        say(f"{row['name']}, {row['layout']}, {row['dtype']}, {row.get('mode')}: {figures}")


def _measure_models(
    report: dict[str, Any],
    device: torch.device,
    options: Options,
    save: Callable[[], object],
    say: Callable[[str], object],
) -> None:
    missing = training.unavailable()
    if missing:
        report["models"] = {"reason": missing}
        say(f"No models: {missing}")
        return
    choice = explain(torch.empty(2, 64, 8, 8, device=device))
    workload = TINY_WORKLOAD if options.tiny else Workload()
    report["models"] = {"backend": f"{choice.backend} ({choice.reason})", "workload": str(workload)}
    precisions = ("AMP",) if options.quick else training.PRECISIONS
    for row in training.measure(device, workload, precisions, repeats=max(1, options.repeats // 3)):
        report["iterations"].append(row)
        save()
        say(f"{row['part']}, {row['precision']}: {row['ratios']}")
