"""The layer part: every contender where Mask R-CNN R50-FPN normalises, beside a plain copy."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mmgn.perf import gate, timing
from mmgn.perf.contenders import (
    DTYPES,
    LAYOUTS,
    OURS,
    Cell,
    Compiling,
    Contender,
    Layer,
    UnavailableError,
    builders,
)
from mmgn.perf.results import ratios
from mmgn.perf.shapes import GROUPS, Shape
from mmgn.testing import Case

COPY = "copy"
#: Fewest passes over the tensor, without and with residual: forward x, y and the residual; backward x, dy, dx and
#: dresidual, a mask of bits counting nothing. A copy makes two.
LIMITS = {"forward": (2, 3), "forward+backward": (5, 7)}


def measure_cell(cell: Cell, backend: str, compiling: Compiling, **how: Any) -> Iterator[dict[str, Any]]:
    """Check ours on the cell's own tensors, then time all contenders, forward and forward+backward.

    Args:
        cell: the input.
        backend: of ours.
        compiling: what is left for torch.compile.
        how: as in :func:`mmgn.perf.timing.measure`.

    Yields:
        A row of the results per mode: the cell, the passes at the limit, and per contender either ``us`` (median),
        ``low_us``, ``high_us`` (quartiles), ``host_us`` and ``peak_mib``, or ``reason``; ``ratios``, each
        contender's median over ours; ``fraction_of_copy``, the time that a copy needs for those passes over ours.

    Raises:
        WrongKernelError: ours is wrong here.
    """
    device = cell.x.device
    weight, bias = (p.detach() for p in cell.params(torch.float32))
    case = Case(cell.x, GROUPS, weight, bias, cell.residual, cell.dy, cell.place.activation)
    gate.check_case(f"{cell.place.name}, {cell.layout}, {cell.dtype}", case, backend)

    build = builders(backend, compiling)
    layers, missing = _build(cell, build)
    target = torch.empty_like(cell.x)
    for mode, limits in LIMITS.items():
        passes = limits[cell.place.residual]
        calls: dict[str, timing.Call] = {name: partial(_run, mode, cell, *layer) for name, layer in layers.items()}
        calls[COPY] = partial(target.copy_, cell.x.detach())
        timings, failures = timing.measure(calls, device, **how)
        reasons = missing | failures
        # In the order of the contenders, whatever failed.
        figures = {
            name: {"reason": reasons[name]} if name in reasons else _figures(timings[name], calls[name], device)
            for name in [*build, COPY]
        }
        copied = figures.pop(COPY)
        yield {
            "name": cell.place.name,
            "shape": cell.place.size,
            "activation": cell.place.activation,
            "residual": cell.place.residual,
            "layout": cell.layout,
            "dtype": cell.dtype,
            "mode": mode,
            "passes_at_limit": passes,
            COPY: copied,
            "contenders": figures,
            "ratios": ratios(figures, OURS, "us"),
            # A copy makes two passes.
            "fraction_of_copy": ratios({COPY: copied, OURS: figures[OURS]}, OURS, "us", passes / 2).get(COPY),
        }


def _build(cell: Cell, build: dict[str, Callable[[Cell], Contender]]) -> tuple[dict[str, Contender], dict[str, str]]:
    layers, missing = {}, {}
    for name, builder in build.items():
        try:
            layers[name] = builder(cell)
        except UnavailableError as error:
            missing[name] = str(error)
        except Exception as error:
            missing[name] = timing.reason(error)
    return layers, missing


def _run(mode: str, cell: Cell, layer: Layer, params: tuple[Tensor, ...]) -> object:
    y = layer(cell.x, cell.residual)
    return y if mode == "forward" else torch.autograd.grad(y, (*cell.inputs, *params), cell.dy)


def _figures(value: timing.Timing, call: timing.Call, device: torch.device) -> dict[str, Any]:
    seconds = {"us": value.median, "low_us": value.low, "high_us": value.high, "host_us": value.host}
    peak = timing.peak_bytes(call, device)
    figures: dict[str, Any] = {name: round(s * 1e6, 2) for name, s in seconds.items()}
    return figures | {"peak_mib": None if peak is None else round(peak / 2**20, 2)}


def measure(
    device: torch.device,
    backend: str,
    places: Iterable[Shape],
    dtypes: tuple[str, ...] = tuple(DTYPES),
    *,
    compile_seconds: float = 120.0,
    **how: Any,
) -> Iterator[dict[str, Any]]:
    """Measure every place, layout and dtype; yields rows as :func:`measure_cell` does, as they come.

    Args:
        device: where to measure.
        backend: of ours.
        places: what to measure.
        dtypes: of ``DTYPES``.
        compile_seconds: what torch.compile may take over all cells; past it the column gives that as its reason.
        how: as in :func:`mmgn.perf.timing.measure`.
    """
    compiling = Compiling(compile_seconds)
    for dtype, layout, place in itertools.product(dtypes, LAYOUTS, places):
        try:
            yield from measure_cell(Cell.draw(place, layout, dtype, device), backend, compiling, **how)
        except torch.cuda.OutOfMemoryError as error:
            where = {"name": place.name, "shape": place.size, "layout": layout, "dtype": dtype}
            yield where | {"reason": timing.reason(error)}
