"""The public function: validation and the choice of a backend."""

import math
import warnings
from functools import lru_cache
from numbers import Real
from typing import NamedTuple

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_variadic

from mmgn.ops import library
from mmgn.ops.fused import FusedGroupNorm
from mmgn.ops.reference import ACTIVATIONS
from mmgn.ops.triton import availability

BACKENDS = ("auto", "native", "triton")
_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
# Subclasses, fake tensors among them, are for the operator to dispatch.
_PLAIN = (Tensor, torch.nn.Parameter)


class Choice(NamedTuple):
    """The backend that serves a call, and why."""

    backend: str
    reason: str


def divisors(n: int) -> tuple[int, ...]:
    """Return the divisors of n, ascending: the ``num_groups`` that n channels allow."""
    return tuple(d for d in range(1, n + 1) if n % d == 0)


def divisibility_error(num_channels: int, num_groups: int) -> ValueError:
    """Build the error for channels that do not split into groups, naming the choices there are."""
    return ValueError(
        f"num_channels must be divisible by num_groups, got {num_channels} and {num_groups}; "
        f"use num_groups in {divisors(num_channels)}, or channels_per_group=... in the layer."
    )


def explain(x: Tensor, backend: str = "auto") -> Choice:
    """Tell which backend :func:`group_norm` takes for ``x``, and why.

    Args:
        x: the tensor that would be normalised.
        backend: as given to :func:`group_norm`.

    Returns:
        The backend's name and the reason in words.

    Raises:
        ValueError: unknown backend.
        NotImplementedError: a backend that cannot run ``x``, as :func:`group_norm` raises it.

    Example:
        >>> explain(torch.zeros(2, 64, 8, 8)).backend
        'native'
    """
    if not _takes_triton(x, backend):
        if backend == "native":
            return Choice("native", "asked for explicitly")
        if x.is_cuda:
            reason = availability.refusal(x) or availability.unrecordable()
        else:
            reason = f"x is on the {x.device.type}, the fused kernels run on CUDA"
        return Choice("native", f"auto: {reason}; torch's own kernels")
    return Choice("triton", "asked for explicitly" if backend == "triton" else f"auto: fused kernels on {x.device}")


def _takes_triton(x: Tensor, backend: str) -> bool:
    """Return whether the fused kernels serve the call, else torch's own do; raise for what cannot be had."""
    if backend == "auto":
        if not x.is_cuda:
            return False
        refusal = availability.refusal(x)
        if refusal is not None and x.dtype in availability.DTYPES:
            _warn_once(refusal)
        return refusal is None and availability.unrecordable() is None
    if backend == "native":
        return False
    if backend != "triton":
        raise ValueError(f"backend must be one of {BACKENDS}, got {backend!r}.")
    refusal = availability.refusal(x) or availability.unrecordable()
    if refusal is not None:
        raise NotImplementedError(
            f"backend='triton' cannot run x of shape {tuple(x.shape)}, {x.dtype} on {x.device}: {refusal}. "
            "Use backend='auto' or backend='native', which run torch's own kernels on every device."
        )
    return True


@lru_cache
def _warn_once(refusal: str) -> None:
    warnings.warn(f"mmgn normalises with torch's own kernels: {refusal}.", stacklevel=4)


def group_norm(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *,
    activation: str = "none",
    residual: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Group normalisation with residual and activation: ``y = act(GN(x) + residual)``.

    ``GN(x) = weight * (x - mean) / sqrt(var + eps) + bias`` with mean and biased variance over the channels of a
    group and all spatial positions of a sample (Wu & He, "Group Normalization", ECCV 2018).

    Args:
        x: (N, C, *spatial), floating point, any number of spatial dimensions, N = 0 included. Contiguous,
            channels_last, sliced and expanded tensors are taken as they are.
        num_groups: G, a divisor of C. 1 normalises like layer norm, C like instance norm.
        weight: (C,) in float32 or x's dtype, or None.
        bias: (C,) in float32 or x's dtype, or None.
        eps: added to the variance, 0 or more; with 0 a constant group gives NaN.
        activation: 'none', 'relu' or 'silu', applied last.
        residual: x's shape, dtype and device, or None; added before the activation.
        backend: 'native' runs torch's own kernels on any device; 'triton' the fused CUDA kernels; 'auto' takes
            the fastest that can run ``x`` and never fails for want of one (:func:`explain` says which). A second
            derivative takes 'native': that of the fused kernels raises.

    Returns:
        y in x's shape, dtype (also under autocast) and memory format.

    Raises:
        ValueError: a shape, num_groups, eps, activation or backend that does not fit.
        TypeError: an integer or complex input, or a dtype or device that does not match x's.
        NotImplementedError: ``backend='triton'`` where the kernels cannot run: Triton missing or too old, no NVIDIA
            GPU of compute capability 7.0 or newer, float64; under torch.jit.trace, ONNX export, torch.func or
            forward-mode differentiation.

    Example:
        >>> y = group_norm(torch.randn(2, 64, 28, 28), 32, activation="relu")
        >>> y.shape
        torch.Size([2, 64, 28, 28])
    """
    if has_torch_function_variadic(x, weight, bias, residual):
        return handle_torch_function(
            group_norm,
            (x, weight, bias, residual),
            x,
            num_groups,
            weight,
            bias,
            eps,
            activation=activation,
            residual=residual,
            backend=backend,
        )
    _check(x, num_groups, weight, bias, eps, activation, residual)
    device_type = x.device.type
    if backend != "native" and (backend != "auto" or device_type == "cuda") and _takes_triton(x, backend):
        if torch.compiler.is_compiling() or type(x) not in _PLAIN:
            return library.group_norm(x, weight, bias, residual, num_groups, eps, activation)[0]
        return FusedGroupNorm.apply(x, weight, bias, residual, num_groups, eps, activation)
    # The meta device has no autocast, and asking raises.
    if device_type != "meta" and torch.is_autocast_enabled(device_type):
        # Autocast would copy half-precision activations to float32 and return them so.
        with torch.autocast(device_type, enabled=False):
            return _native(x, num_groups, weight, bias, eps, activation, residual)
    return _native(x, num_groups, weight, bias, eps, activation, residual)


def _native(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    activation: str,
    residual: Tensor | None,
) -> Tensor:
    weight, bias = _as_native(weight, bias, x)
    # N may be known at run time alone.
    if 0 not in x.shape[1:]:
        # torch.group_norm, not F.group_norm: the latter refuses a single value per group, which a
        # 1x1 feature map of one RoI has.
        y = torch.group_norm(_centred(x, num_groups), num_groups, weight, bias, eps, torch.backends.cudnn.enabled)
    else:
        y = _of_nothing(x, weight, bias)
    if not x.is_contiguous():
        # CUDA's kernel returns NCHW for channels_last; a no-op where the format was kept.
        if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
            y = y.contiguous(memory_format=torch.channels_last)
        elif x.dim() == 5 and x.is_contiguous(memory_format=torch.channels_last_3d):
            y = y.contiguous(memory_format=torch.channels_last_3d)
    # In place: group norm's backward needs its input, not its output.
    if residual is not None:
        y = y.add_(residual)
    if activation == "relu":
        return y.relu_()
    return torch.nn.functional.silu(y) if activation == "silu" else y


def _centred(x: Tensor, num_groups: int) -> Tensor:
    """Return x less its groups' means where torch takes its CPU kernel for channels_last, which leaves y as it is.

    That kernel takes var = E[x^2] - E[x]^2, which of 1e4 +- 1 in float32 leaves nothing. Other dtypes' sums, which are
    float32 for half precision, have digits to spare.
    """
    if x.device.type != "cpu" or x.dim() < 4 or x.dtype is not torch.float32:
        return x
    if x.is_contiguous():
        # The strides of a 1x1 map may say channels_last too.
        return x.clone(memory_format=torch.contiguous_format) if x.stride(1) == 1 else x
    n, c = x.shape[:2]
    with torch.no_grad():
        mean = x.flatten(2).mean(2).view(n, num_groups, c // num_groups).mean(2, keepdim=True)
        mean = mean.expand(-1, -1, c // num_groups).reshape(n, c, *[1] * (x.dim() - 2))
    return x - mean


def _as_native(weight: Tensor | None, bias: Tensor | None, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Return the parameters in dtypes that torch's kernel takes: x's, or float32 beside half precision on a CPU."""
    if x.device.type != "cpu" or x.dtype not in (torch.float16, torch.bfloat16):
        return tuple(p if p is None or p.dtype is x.dtype else p.to(x.dtype) for p in (weight, bias))  # type: ignore[return-value]
    if bias is None or bias.dtype is (x if weight is None else weight).dtype:
        return weight, bias
    # They go by the weight's dtype there, and by x's without one.
    weight = x.new_ones(x.size(1), dtype=torch.float32) if weight is None else weight.float()
    return weight, bias.float()


def _of_nothing(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Return y of an x without elements, with its gradients, where torch refuses some: of no channel or no pixel."""
    y = x.clone()
    for param in (weight, bias):
        if param is not None:
            y = y + param.to(x.dtype).reshape(1, -1, *[1] * (x.dim() - 2))
    return y


def _check(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    activation: str,
    residual: Tensor | None,
) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a torch.Tensor of shape (N, C, *spatial), got {type(x).__name__}.")
    if x.dtype not in _DTYPES:
        raise TypeError(
            f"x must be floating point (float16, bfloat16, float32 or float64), got {x.dtype}; "
            "convert it first, for example with x.float()."
        )
    if x.dim() < 2:
        raise ValueError(f"x must have shape (N, C, *spatial) with at least 2 dimensions, got {tuple(x.shape)}.")
    num_channels = x.size(1)
    if isinstance(num_groups, bool) or not isinstance(num_groups, (int, torch.SymInt)) or num_groups < 1:
        raise ValueError(f"num_groups must be a positive integer, got {num_groups!r}.")
    if num_channels % num_groups:
        raise divisibility_error(num_channels, num_groups)
    if weight is not None:
        _check_param("weight", weight, x, num_channels)
    if bias is not None:
        _check_param("bias", bias, x, num_channels)
    if not isinstance(eps, (float, Real, torch.SymFloat)):
        raise TypeError(f"eps must be a number, got {type(eps).__name__}.")
    if not 0 <= eps < math.inf:
        raise ValueError(f"eps must be 0 or more and finite, got {eps!r}.")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {ACTIVATIONS}, got {activation!r}.")
    if residual is None:
        return
    if not isinstance(residual, Tensor):
        raise TypeError(f"residual must be a torch.Tensor of x's shape, got {type(residual).__name__}.")
    if residual.shape != x.shape:
        raise ValueError(
            f"residual must have x's shape {tuple(x.shape)}, got {tuple(residual.shape)}; expand it first if it "
            "is meant to broadcast."
        )
    if residual.dtype != x.dtype or residual.device != x.device:
        raise TypeError(
            f"residual must have x's dtype and device, {x.dtype} on {x.device}, "
            f"got {residual.dtype} on {residual.device}; use residual.to(x)."
        )


def _check_param(name: str, param: Tensor, x: Tensor, num_channels: int) -> None:
    if not isinstance(param, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor of shape ({num_channels},), got {type(param).__name__}.")
    if param.dim() != 1 or param.size(0) != num_channels:
        raise ValueError(
            f"{name} must have shape ({num_channels},), one value per channel of x with shape {tuple(x.shape)}, "
            f"got {tuple(param.shape)}."
        )
    dtype = param.dtype
    if (dtype is not x.dtype and dtype is not torch.float32) or param.device != x.device:
        raise TypeError(
            f"{name} must be float32 or x's dtype, {x.dtype}, on x's device, {x.device}; "
            f"got {param.dtype} on {param.device}."
        )
