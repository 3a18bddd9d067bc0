"""The contenders in norm, addition and activation, each built for one cell: a place, a layout and a dtype.

All keep one contract: y has x's dtype and memory format, as the next convolution needs it. What torch's own kernels
leave in float32 (autocast) or NCHW (channels_last) is converted back inside the measured time.
"""

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmgn.ops import group_norm
from mmgn.perf import timing
from mmgn.perf.shapes import GROUPS, Shape

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
#: In the order in which they are measured: a run that is cut short has the most wanted rows.
DTYPES = {"float16": torch.float16, "float32": torch.float32, "bfloat16": torch.bfloat16}
OURS = "mmgn"

#: Of x and the residual, which may be None.
Layer = Callable[[Tensor, Tensor | None], Tensor]
#: What to call, and the parameters to differentiate.
Contender = tuple[Layer, tuple[Tensor, ...]]


class UnavailableError(RuntimeError):
    """A contender that cannot run here; the message becomes its entry in the results."""


@dataclass
class Compiling:
    """The seconds that torch.compile may still take, over all cells."""

    total: float
    spent: float = 0.0


@dataclass
class Cell:
    """One input: a place of the network, a layout and a dtype, with tensors drawn on the device."""

    place: Shape
    layout: str
    dtype: str
    x: Tensor
    dy: Tensor
    residual: Tensor | None

    @classmethod
    def draw(cls, place: Shape, layout: str, dtype: str, device: torch.device) -> "Cell":
        """Draw x, dy and, where the place has one, the residual: standard normal."""
        generator = torch.Generator(device).manual_seed(0)

        def normal() -> Tensor:
            values = torch.randn(place.size, generator=generator, device=device, dtype=DTYPES[dtype])
            return values.contiguous(memory_format=LAYOUTS[layout])

        residual = normal().requires_grad_() if place.residual else None
        return cls(place, layout, dtype, normal().requires_grad_(), normal(), residual)

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The activations to differentiate."""
        return (self.x,) if self.residual is None else (self.x, self.residual)

    def params(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Draw weight and bias; the same in every contender, up to rounding."""
        generator = torch.Generator().manual_seed(1)
        weight, bias = torch.randn(2, self.x.shape[1], generator=generator).to(self.x.device, dtype).unbind()
        return weight.detach().requires_grad_(), bias.detach().requires_grad_()


def ours(cell: Cell, backend: str) -> Contender:
    """Build the fused op with float32 parameters, as under AMP."""
    weight, bias = cell.params(torch.float32)
    activation = cell.place.activation

    def layer(x: Tensor, residual: Tensor | None) -> Tensor:
        return group_norm(x, GROUPS, weight, bias, activation=activation, residual=residual, backend=backend)

    return layer, (weight, bias)


def _finish(y: Tensor, residual: Tensor | None, activation: str) -> Tensor:
    """Add and activate as mmdet's blocks do, in place."""
    if residual is not None:
        y = y.add_(residual)
    return y.relu_() if activation == "relu" else y


def eager(cell: Cell) -> Contender:
    """Build nn.GroupNorm and what follows it with everything in x's dtype."""
    weight, bias = cell.params(cell.x.dtype)
    memory_format, activation = LAYOUTS[cell.layout], cell.place.activation

    def layer(x: Tensor, residual: Tensor | None) -> Tensor:
        y = _finish(F.group_norm(x, GROUPS, weight, bias), residual, activation)
        return y.contiguous(memory_format=memory_format)

    return layer, (weight, bias)


def eager_autocast(cell: Cell) -> Contender:
    """Build nn.GroupNorm and what follows it as AMP runs them: in float32 between two casts."""
    if cell.dtype == "float32":
        raise UnavailableError("float32 activations pass autocast unchanged")
    weight, bias = cell.params(torch.float32)
    memory_format, activation = LAYOUTS[cell.layout], cell.place.activation

    def layer(x: Tensor, residual: Tensor | None) -> Tensor:
        with torch.autocast(x.device.type, dtype=x.dtype):
            y = _finish(F.group_norm(x, GROUPS, weight, bias), residual, activation)
            return y.to(x.dtype, memory_format=memory_format)

    return layer, (weight, bias)


def compiled(cell: Cell, compiling: Compiling) -> Contender:
    """Build :func:`eager` through torch.compile, compiled here for this one shape, forward and backward."""
    if compiling.spent >= compiling.total:
        raise UnavailableError(f"the {compiling.total:.0f} s for torch.compile were spent")
    start = time.perf_counter()
    try:
        # Anew for each cell: dynamo gives up on a function that it has compiled for too many shapes.
        torch.compiler.reset()
        layer, params = eager(cell)
        layer = torch.compile(layer, fullgraph=True, dynamic=False)
        torch.autograd.grad(layer(cell.x, cell.residual), (*cell.inputs, *params), cell.dy)
    finally:
        compiling.spent += time.perf_counter() - start
    return layer, params


def frozen_bn(cell: Cell) -> Contender:
    """Build nn.BatchNorm2d with nothing to train and what follows it, what detectors run today."""
    norm = nn.BatchNorm2d(cell.place.c, device=cell.x.device).eval().requires_grad_(False)
    return (lambda x, residual: _finish(norm(x), residual, cell.place.activation)), ()


def apex(cell: Cell) -> Contender:
    """Build Apex's GroupNorm; for ReLU alone with the SiLU that it fuses, whose traffic is the same."""
    try:
        module = importlib.import_module("apex.contrib.group_norm")
    except Exception as error:
        raise UnavailableError(timing.reason(error)) from error
    if cell.layout != "channels_last":
        raise UnavailableError("channels_last only")
    activation = cell.place.activation
    fused = activation == "relu" and cell.residual is None
    norm = module.GroupNorm(GROUPS, cell.place.c, device=cell.x.device, act="silu" if fused else "")
    # Apex runs torch's kernel where it has none of its own.
    if not norm._check_legality(cell.x):
        raise UnavailableError(f"no kernel for {cell.place.c} channels in {cell.dtype}")

    def layer(x: Tensor, residual: Tensor | None) -> Tensor:
        return norm(x) if fused else _finish(norm(x), residual, activation)

    return layer, (norm.weight, norm.bias)


def builders(backend: str, compiling: Compiling) -> dict[str, Callable[[Cell], Contender]]:
    """Return what builds each contender, by name, ours first; building one raises where it cannot run."""
    return {
        OURS: partial(ours, backend=backend),
        "eager": eager,
        "eager autocast": eager_autocast,
        "torch.compile": partial(compiled, compiling=compiling),
        "frozen BN": frozen_bn,
        "Apex (SiLU)": apex,
    }
