"""Runs a plan: allocates its buffers, launches its kernels, and keeps what a next call of the shape can use again."""

import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from mmgn.ops.triton.lock import compile_lock
from mmgn.ops.triton.plan import Buffer, Launch, Plan, plan_backward, plan_forward
from mmgn.ops.triton.problem import Device, Problem, saved_for_backward

#: Of every kernel. Contraction to fused multiply-adds is asked for, as Triton is about to change its default.
OPTIONS = {"enable_fp_fusion": True}
#: The dtypes of activations that the kernels take, by the names plans use.
DTYPES = {torch.float16: "float16", torch.bfloat16: "bfloat16", torch.float32: "float32"}


def interpreted() -> bool:
    """Return whether Triton interprets kernels, on the CPU, instead of compiling them."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def memory_layout(x: Tensor) -> str:
    """Return the layout x is normalised in; what is neither of the two is copied to 'contiguous'."""
    if x.is_contiguous():
        # One pixel: the same in both layouts, and wide rows in this one.
        return "channels_last" if x.shape[2:].numel() == 1 else "contiguous"
    if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
        return "channels_last"
    if x.dim() == 5 and x.is_contiguous(memory_format=torch.channels_last_3d):
        return "channels_last"
    return "contiguous"


def _readable(t: Tensor) -> Tensor:
    """Return t as kernels read memory, 128 bits at a time and without a pending negation; a copy only where it is not.

    For other addresses Triton would compile kernels that add up in another order.
    """
    return t.resolve_neg().clone() if t.data_ptr() % 16 or t.is_neg() else t


def _in_layout(t: Tensor, x: Tensor) -> Tensor:
    """Return t with x's strides, x being dense; a copy only where they differ."""
    return _readable(t) if t.stride() == x.stride() else torch.empty_like(x).copy_(t)


@lru_cache
def device_limits(index: int | None) -> Device:
    """Return what plans depend on of a CUDA device, by index; None stands for the interpreter."""
    if index is None:
        return Device()
    return Device(torch.cuda.get_device_properties(index).L2_cache_size)


# Names of the kernels that this process has compiled or found compiled.
_COMPILED: set[str] = set()


class _Step:
    """One launch of a plan, ready to be repeated with other tensors."""

    def __init__(self, launch: Launch, buffers: Mapping[str, Buffer]) -> None:
        # Here, as on a machine without Triton everything else works.
        from mmgn.ops.triton.kernels import KERNELS

        self.kernel = KERNELS[launch.kernel]
        self.grid = (launch.programs, 1, 1)
        self.options = {"num_warps": launch.num_warps, **OPTIONS}
        # The same name in every process: who compiles what another one needs.
        dtypes = [buffers[buffer].dtype for _, buffer in launch.tensors if buffer is not None]
        constants = repr((launch.constants, launch.num_warps, dtypes)).encode()
        self.name = f"{launch.kernel}-{zlib.crc32(constants):08x}"
        values = dict(launch.scalars) | dict(launch.constants)
        names = self.kernel.arg_names
        self.template: list[Any] = [values.get(name) for name in names]
        self.slots = [(names.index(argument), buffer) for argument, buffer in launch.tensors if buffer is not None]
        self.repeat: Callable[..., Any] | None = None

    def __call__(self, tensors: dict[str, Tensor]) -> None:
        arguments = self.template.copy()
        for place, buffer in self.slots:
            arguments[place] = tensors[buffer]
        if self.repeat is not None:
            self.repeat(*arguments)
            return
        with nullcontext() if interpreted() or self.name in _COMPILED else compile_lock(self.name):
            kernel = self.kernel[self.grid](*arguments, **self.options)
        _COMPILED.add(self.name)
        # Of tensors Triton looks at dtype and alignment, which are the same next time.
        if kernel is not None:
            self.repeat = kernel[self.grid]


class Call:
    """A plan and its launches, for one shape on one device."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.steps = [_Step(launch, plan.buffers) for launch in plan.launches]

    def run(self, tensors: dict[str, Tensor], x: Tensor) -> None:
        """Launch on x's device and its current stream; tensors by the plan's names for buffers, all aligned."""
        elsewhere = x.is_cuda and x.device.index != torch.cuda.current_device()
        with torch.cuda.device(x.device) if elsewhere else nullcontext():
            for step in self.steps:
                step(tensors)


# Shapes recur: a detector trained on images of many sizes has some thousands of them.
@lru_cache(maxsize=16384)
def _call(
    shape: torch.Size,
    dtype: torch.dtype,
    layout: str,
    groups: int,
    eps: float,
    activation: str,
    residual: bool,
    weight: torch.dtype | None,
    bias: torch.dtype | None,
    device: int | None,
    wanted: tuple[bool, bool, bool, bool] | None,
) -> Call:
    problem = Problem(
        n=shape[0],
        c=shape[1],
        s=shape[2:].numel(),
        groups=groups,
        dtype=DTYPES[dtype],
        param_dtype=DTYPES[weight or bias or torch.float32],
        layout=layout,
        activation=activation,
        residual=residual,
        weight=weight is not None,
        bias=bias is not None,
        eps=eps,
    )
    limits = device_limits(device)
    return Call(plan_forward(problem, limits) if wanted is None else plan_backward(problem, limits, wanted))


def _same_dtype(weight: Tensor | None, bias: Tensor | None) -> Tensor | None:
    """Return bias in weight's dtype: kernels know one dtype of parameters."""
    return bias if weight is None or bias is None or bias.dtype is weight.dtype else bias.to(weight.dtype)


def dense(x: Tensor) -> Tensor:
    """Return x where its layout is one the kernels read, else a contiguous copy."""
    if x.is_contiguous() or memory_layout(x) == "channels_last":
        return x
    return x.contiguous()


def saved_tensor(y: Tensor, residual: Tensor | None, activation: str) -> Tensor | None:
    """Return the tensor that :func:`backward` takes as ``saved``."""
    return {None: None, "y": y, "residual": residual}[saved_for_backward(residual is not None, activation)]


def forward(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    num_groups: int,
    eps: float,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute y, mean and rstd; arguments as in :func:`mmgn.ops.group_norm`, checked.

    Returns:
        y in x's shape and dtype, in x's memory format or contiguous where that is neither contiguous nor
        channels_last; mean and rstd, (N, G) in float32.
    """
    x = _readable(dense(x))
    y = torch.empty_like(x)
    mean, rstd = (x.new_empty((x.shape[0], num_groups), dtype=torch.float32) for _ in range(2))
    if x.numel() == 0:
        return y, mean.zero_(), rstd.zero_()
    bias = _same_dtype(weight, bias)
    call = _call(
        x.shape,
        x.dtype,
        memory_layout(x),
        num_groups,
        eps,
        activation,
        residual is not None,
        None if weight is None else weight.dtype,
        None if bias is None else bias.dtype,
        x.device.index,
        None,
    )
    tensors = {"x": x, "y": y, "mean": mean, "rstd": rstd}
    if weight is not None:
        tensors["weight"] = _readable(weight.contiguous())
    if bias is not None:
        tensors["bias"] = _readable(bias.contiguous())
    if residual is not None:
        tensors["residual"] = _in_layout(residual, x)
    if "partials" in call.plan.buffers:
        tensors["partials"] = x.new_empty(call.plan.buffers["partials"].numel, dtype=torch.float32)
    call.run(tensors, x)
    return y, mean, rstd


def backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    saved: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    activation: str,
    residual: bool,
    wanted: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """Compute the gradients that ``wanted`` names: of x, weight, bias and residual.

    Args:
        dy: gradient of y, x's shape and dtype, any strides.
        x: as given to :func:`forward`; likewise weight, bias and activation.
        weight: see x.
        bias: see x.
        saved: y for ReLU with a residual, the residual for SiLU with one, else None.
        mean: as returned by :func:`forward`.
        rstd: as returned by :func:`forward`.
        activation: see x.
        residual: whether there was one.
        wanted: which gradients to compute; dresidual without an activation is dy, and not computed here.
    """
    want_dresidual = wanted[3] and activation != "none"
    if not (any(wanted[:3]) or want_dresidual):
        return None, None, None, None
    x = _readable(dense(x))
    bias = _same_dtype(weight, bias)
    dx = torch.empty_like(x) if wanted[0] else None
    dresidual = torch.empty_like(x) if want_dresidual else None
    if x.numel() == 0:
        dw, db = (x.new_zeros(x.shape[1], dtype=torch.float32) if want else None for want in wanted[1:3])
        return dx, dw, db, dresidual
    call = _call(
        x.shape,
        x.dtype,
        memory_layout(x),
        mean.shape[1],
        0.0,
        activation,
        residual,
        None if weight is None else weight.dtype,
        None if bias is None else bias.dtype,
        x.device.index,
        (wanted[0], wanted[1], wanted[2], wanted[3]),
    )
    plan = call.plan
    tensors = {"dy": _in_layout(dy, x), "x": x, "mean": _readable(mean), "rstd": _readable(rstd)}
    if weight is not None:
        tensors["weight"] = _readable(weight.contiguous())
    if bias is not None:
        tensors["bias"] = _readable(bias.contiguous())
    if saved is not None and plan.problem.saved:
        tensors[plan.problem.saved] = _in_layout(saved, x)
    if dx is not None:
        tensors["dx"] = dx
    if dresidual is not None:
        tensors["dresidual"] = dresidual
    for name in ("partials", "c1", "c2"):
        if name in plan.buffers:
            tensors[name] = x.new_empty(plan.buffers[name].numel, dtype=torch.float32)
    call.run(tensors, x)
    if not (wanted[1] or wanted[2]):
        return dx, None, None, dresidual
    # torch's own reduction: one kernel, in an order that is the same every time.
    db, dw = tensors["partials"].view(plan.partial_shape).sum(plan.partial_dims)
    return dx, dw if wanted[1] else None, db if wanted[2] else None, dresidual
