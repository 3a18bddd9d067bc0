"""One case of the op, its float64 truth, and the rule by which an implementation is right."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

LAYOUTS = ("contiguous", "channels_last", "sliced", "expanded")
#: What a run returns, in order.
RESULTS = ("y", "dx", "dw", "db", "dresidual")


@dataclass
class Case:
    """Inputs of one call; ``dy`` is random, as a constant gradient hides mistakes in dx."""

    x: Tensor
    num_groups: int
    weight: Tensor | None
    bias: Tensor | None
    residual: Tensor | None
    dy: Tensor
    activation: str = "none"
    eps: float = 1e-5


def _in_layout(x: Tensor, layout: str) -> Tensor:
    if layout == "channels_last":
        return x.to(memory_format=torch.channels_last if x.dim() == 4 else torch.channels_last_3d)
    if layout == "sliced":
        return torch.stack([x, torch.full_like(x, math.nan)], dim=-1)[..., 0]
    if layout == "expanded":
        return x[..., :1].expand_as(x)
    return x


def make_case(
    shape: tuple[int, ...],
    num_groups: int,
    dtype: torch.dtype = torch.float32,
    *,
    param_dtype: torch.dtype | None = None,
    layout: str = "contiguous",
    affine: bool = True,
    residual: bool = False,
    activation: str = "none",
    offset: float = 0.0,
    device: str = "cpu",
    seed: int = 0,
) -> Case:
    """Make a reproducible case.

    Args:
        shape: (N, C, *spatial).
        num_groups: G.
        dtype: of x, residual and dy.
        param_dtype: of weight and bias; ``dtype`` if not given.
        layout: one of ``LAYOUTS``; of x and of the residual.
        affine: with weight and bias.
        residual: with a residual.
        activation: as in the op.
        offset: added to x; a large one breaks E[x^2] - E[x]^2.
        device: where the tensors live.
        seed: of the generator, which lives on the CPU so that devices see the same numbers.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(*size: int, to: torch.dtype) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64).to(device, to)

    channels = shape[1]
    param_dtype = param_dtype or dtype
    x = _in_layout(draw(*shape, to=torch.float64) + offset, layout).to(dtype)
    return Case(
        x=_in_layout(x, layout),
        num_groups=num_groups,
        weight=draw(channels, to=param_dtype) if affine else None,
        bias=draw(channels, to=param_dtype) if affine else None,
        residual=_in_layout(draw(*shape, to=dtype), layout) if residual else None,
        dy=draw(*shape, to=dtype),
        activation=activation,
    )


def run(case: Case, op: Callable[..., Tensor], dtype: torch.dtype | None = None) -> dict[str, Tensor | None]:
    """Run ``op`` (called like ``mmgn.group_norm``) forward and backward; with ``dtype``, on inputs cast to it."""

    def leaf(t: Tensor | None) -> Tensor | None:
        # expand() keeps strides through detach, so the layout under test survives.
        return None if t is None else t.detach().to(dtype or t.dtype).requires_grad_()

    x, weight, bias, residual = (leaf(t) for t in (case.x, case.weight, case.bias, case.residual))
    assert x is not None
    y = op(x, case.num_groups, weight, bias, case.eps, activation=case.activation, residual=residual)
    y.backward(case.dy.to(y.dtype))
    grads = (None if t is None else t.grad for t in (x, weight, bias, residual))
    return dict(zip(RESULTS, (y.detach(), *grads), strict=True))


def eager(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    *,
    activation: str,
    residual: Tensor | None,
) -> Tensor:
    """Compose the op of torch's own functions, each rounding to x's dtype: the yardstick for an error."""
    weight, bias = (None if p is None else p.to(x.dtype) for p in (weight, bias))
    y = torch.group_norm(x, num_groups, weight, bias, eps)
    if residual is not None:
        y = y + residual
    return {"none": lambda t: t, "relu": torch.relu, "silu": torch.nn.functional.silu}[activation](y)


def oracle(case: Case) -> dict[str, Tensor | None]:
    """Return y and the gradients in float64, by torch's autograd: independent of this package's formulas."""
    return run(case, eager, torch.float64)


def assert_no_worse(case: Case, op: Callable[..., Tensor], yardstick: Callable[..., Tensor] = eager) -> None:
    """Assert that op's error is at most twice that of torch's own composition in the same dtype, plus one rounding.

    Args:
        case: the inputs.
        op: called like ``mmgn.group_norm``.
        yardstick: likewise; the truth is what it gives in float64.

    Raises:
        AssertionError: naming the result (y, dx, dw, db, dresidual), its error and the bound.
    """
    truth, baseline, actual = run(case, yardstick, torch.float64), run(case, yardstick), run(case, op)
    for name in RESULTS:
        want, base, got = truth[name], baseline[name], actual[name]
        if want is None or base is None or got is None:
            assert want is base is got is None, f"{name} is missing in one of oracle, torch and the op"
            continue
        assert got.shape == want.shape, f"{name} has shape {tuple(got.shape)}, not {tuple(want.shape)}"
        assert got.dtype == base.dtype, f"{name} is {got.dtype}, not {base.dtype}"
        if want.numel() == 0:
            continue
        rounding = torch.finfo(got.dtype).eps * want.abs().max()
        bound = 2 * (base.double() - want).abs().max() + rounding
        error = (got.double() - want).abs().max()
        assert error <= bound, f"{name}: error {error:.3e} exceeds {bound:.3e} ({_describe(case)})"


def _describe(case: Case) -> str:
    parts = []
    for field in fields(case):
        value = getattr(case, field.name)
        text = f"{tuple(value.shape)} {value.dtype}" if isinstance(value, Tensor) else value
        parts.append(f"{field.name}={text}")
    return ", ".join(parts)
