"""The arguments of ``mmgn.group_norm``: torch's own values and gradients where they are valid, else a clear error.

A corpus' file is JSON of the arguments; tensors are of ``shape``, ``dtype``, ``device``, ``strides`` and ``offset``.
"""

import math
import warnings
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from fuzzing import trees
from mmgn import group_norm
from mmgn.testing import Case, run
from mmgn.testing.interpreter import record_traffic
from mmgn.testing.oracle import eager
from mmgn.testing.poison import poisoned_empty

warnings.filterwarnings("ignore")
_DTYPES = ("float32", "float16", "bfloat16", "float64", "int64", "bool", "complex64", "float8_e4m3fn", "float8_e5m2")
_FUSED = (torch.float32, torch.float16, torch.bfloat16)
_FILLS = ("normal", "large", "constant", "zero", "nan", "inf")
_ACTIVATIONS = ("none", "relu", "silu")
_BACKENDS = ("auto", "native", "triton")
# Elements; interpreted kernels are slow.
_MOST, _INTERPRETED = 4096, 512
_VALUES = (*range(14), -1, 2**31, 2**63, True, None, 0.0, 1.5, float("nan"), float("inf"), -1e-5, 1e30, "", "x", [], {},
           *_DTYPES, *_FILLS, *_ACTIVATIONS, *_BACKENDS, "meta", "cpu")  # fmt: skip


def fresh(rng: Random) -> bytes:
    """Return arguments that are valid, or nearly so."""
    groups, d = rng.randint(1, 4), rng.randint(1, 4)
    n, spatial = rng.choice((0, 1, 1, 2, 2, 3, 3)), [rng.randint(1, 5) for _ in range(rng.choice((0, 1, 2, 2, 2, 3)))]
    shape, dtype = [n, groups * d, *spatial], rng.choice(_DTYPES[:4])
    param = {
        "shape": shape[1:2],
        "dtype": rng.choice((dtype, "float32")),
        "strides": rng.choice((None, None, [2], [0])),
    }
    x = {"shape": shape, "dtype": dtype, "strides": _strides(shape, rng)}
    x |= {"offset": rng.choice((0, 0, 1, 3)), "fill": rng.choice(_FILLS)}
    residual = {"shape": shape, "dtype": dtype, "strides": _strides(shape, rng)}
    return trees.write(
        {
            **{"x": x, "num_groups": groups, "weight": rng.choice((param, None)), "bias": rng.choice((param, None))},
            **{"eps": rng.choice((1e-5, 1e-5, 1e-3, 1.0)), "activation": rng.choice(_ACTIVATIONS)},
            **{"seed": rng.randrange(99), "residual": rng.choice((residual, None)), "backend": rng.choice(_BACKENDS)},
        }
    )


def _strides(shape: list[int], rng: Random) -> list[int] | None:
    """Return strides: contiguous, channels_last, permuted, with gaps, overlapping, or of any size."""
    kind = rng.randrange(6)
    if kind == 0:
        return None
    if kind == 5:
        return [rng.randint(0, 7) for _ in shape]
    order = list(range(len(shape)))
    if kind == 1 and len(shape) > 2:
        order = [0, *order[2:], 1]
    elif kind == 2:
        rng.shuffle(order)
    step, strides = rng.choice((2, 3)) if kind == 3 else 1, [0] * len(shape)
    for axis in reversed(order):
        strides[axis], step = step, step * max(shape[axis], 1)
    if kind == 4:
        strides[rng.randrange(len(shape))] = 0
    return strides


def mutate(data: bytes, rng: Random) -> bytes:
    """Change some arguments."""
    return trees.mutate(data, rng, _VALUES, raw=0.0)


def check(data: bytes, folder: Path) -> None:
    """Call it, forward and backward."""
    asked = trees.parse(data)
    if not isinstance(asked, dict):
        return
    seed = asked.get("seed")
    generator = torch.Generator().manual_seed(seed if type(seed) is int and 0 <= seed < 2**63 else 0)
    x, weight, bias, residual = (_tensor(asked.get(k), generator) for k in ("x", "weight", "bias", "residual"))
    num_groups, eps = asked.get("num_groups"), asked.get("eps", 1e-5)
    activation, backend = asked.get("activation", "none"), asked.get("backend", "auto")
    flaw = _flaw(x, num_groups, weight, bias, eps, activation, residual, backend)
    if not flaw and backend == "triton" and x.numel() > _INTERPRETED:
        return
    options = {"activation": activation, "residual": residual, "backend": backend}
    if flaw:
        try:
            y = group_norm(x, num_groups, weight, bias, eps, **options)
        except flaw as error:
            assert 0 < len(str(error)) < 1000
            return
        raise AssertionError(f"none of {flaw}, but {tuple(y.shape)} {y.dtype}")
    if x.device.type == "meta":
        y = group_norm(x, num_groups, weight, bias, eps, **options)
        assert (y.shape, y.dtype, y.device.type) == (x.shape, x.dtype, "meta")
        return
    dy = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.dtype)
    case = Case(x, num_groups, weight, bias, residual, dy, activation, float(eps))
    before = [None if t is None else t.clone() for t in (x, weight, bias, residual)]
    op = lambda *args, **kwargs: group_norm(*args, **kwargs, backend=backend)  # noqa: E731
    with ExitStack() as stack:
        stack.enter_context(poisoned_empty())
        launches = stack.enter_context(record_traffic()) if backend == "triton" else []
        _compare(case, op, torch.float32 if backend == "triton" else x.dtype)
    for launch in launches:
        launch.assert_no_race()
    for old, new in zip(before, (x, weight, bias, residual), strict=True):
        assert old is None or torch.equal(old.nan_to_num(), new.nan_to_num()), "an input has changed"


def _compare(case: Case, op: Any, steps: torch.dtype) -> None:
    """Hold a run against torch's in float64; where that has NaN or infinity, NaN is where torch has it.

    Allowed is twice torch's own error and a rounding of the result, as everywhere; but of a few numbers torch may have
    no error by chance, so also what x's last bits do to the truth, and roundings of the terms that a result sums: in
    float32, and once in the dtype that the steps between have.
    """
    results = run(case, op)
    if not case.x.numel():
        # torch refuses some of these.
        assert all(t is None or not t.any() for t in results.values()), "gradients of nothing"
        return
    truth, torchs = run(case, eager, torch.float64), run(case, eager)
    largest = torch.finfo(case.x.dtype).max
    if not all(t is None or bool((t.abs() < largest).all()) for t in truth.values()):
        assert torch.equal(results["y"].isnan(), torchs["y"].isnan()), "NaN elsewhere than torch has it"
        return
    one_bit = torch.finfo(torch.float32).eps
    rounding = max(4 * one_bit, torch.finfo(steps).eps)
    signs = [torch.randn(case.x.shape, generator=torch.Generator().manual_seed(seed)).sign() for seed in range(3)]
    others = [run(replace(case, x=case.x.double() * (1 + one_bit * sign)), eager, torch.float64) for sign in signs]
    for (name, want), terms in zip(truth.items(), _terms(case), strict=True):
        got, base = results[name], torchs[name]
        if want is None:
            assert got is base is None, f"{name} was not asked for"
            continue
        assert (got.shape, got.dtype) == (base.shape, base.dtype), f"{name} is {tuple(got.shape)} {got.dtype}"
        bound = 2 * _apart(base, want) + torch.finfo(got.dtype).eps * want.abs().max() + rounding * terms
        bound += 8 * max(_apart(other[name], want) for other in others)
        assert _apart(got, want) <= bound, f"{name} is off by {_apart(got, want):.3e}, more than {bound:.3e}"


def _terms(case: Case) -> list[float]:
    """Return what the terms of y, dx, dw, db and dresidual are at most."""
    tensors = (case.weight, case.bias, case.residual, case.dy)
    weight, bias, added, dy = (1.0 if t is None else float(t.abs().max()) for t in tensors)
    groups = case.x.double().reshape(case.x.shape[0] * case.num_groups, -1)
    rstd = float((groups.var(1, correction=0) + case.eps).rsqrt().max())
    root, per_channel = groups.shape[1] ** 0.5, case.x.numel() / case.x.shape[1]
    return [weight * root + bias + added, dy * weight * rstd, per_channel * dy * root, per_channel * dy, dy]


def _apart(one: Tensor, other: Tensor) -> Tensor:
    return (one.double() - other).abs().max()


def _tensor(spec: Any, generator: torch.Generator) -> Any:
    """Return a tensor, or what is no description of one as it is."""
    if not isinstance(spec, dict) or "shape" not in spec:
        return spec
    shape, strides, offset = spec["shape"], spec.get("strides"), spec.get("offset", 0)
    dtype = getattr(torch, spec["dtype"]) if spec.get("dtype") in _DTYPES else torch.float32
    if not _are_sizes(shape) or math.prod(shape) > _MOST:
        return spec
    if not _are_sizes(strides) or len(strides) != len(shape):
        strides = torch.empty(shape, device="meta").stride()
    offset = offset if type(offset) is int and 0 <= offset <= 64 else 0
    room = offset + 1 + sum((n - 1) * step for n, step in zip(shape, strides, strict=True) if n)
    if room > 2**20:
        return spec
    memory = torch.randn(max(room, 1), generator=generator, dtype=torch.float64)
    memory = _FILL[spec["fill"] if spec.get("fill") in _FILLS else "normal"](memory)
    memory = memory.to(dtype) if dtype is not torch.bool else memory > 0
    return memory.to("meta" if spec.get("device") == "meta" else "cpu").as_strided(shape, strides, offset)


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n <= _MOST for n in value)


_FILL: dict[Any, Any] = {
    "normal": lambda t: t,
    "large": lambda t: t + 30,
    "constant": torch.ones_like,
    "zero": torch.zeros_like,
    "nan": lambda t: t.masked_fill(t > 1.5, math.nan),
    "inf": lambda t: t.masked_fill(t > 1.5, math.inf),
}


def _flaw(
    x: Any, num_groups: Any, weight: Any, bias: Any, eps: Any, activation: Any, residual: Any, backend: Any
) -> tuple[type[Exception], ...]:
    """Return what must be raised, () for nothing: the docstring's rules, told without the op's own code."""
    if not isinstance(x, Tensor) or x.dtype not in (*_FUSED, torch.float64):
        return (TypeError,)
    wrong: tuple[type[Exception], ...] = (ValueError, TypeError)
    if x.dim() < 2 or type(num_groups) is not int or num_groups < 1 or x.shape[1] % num_groups:
        return wrong
    for param in (weight, bias):
        if param is None:
            continue
        sound = isinstance(param, Tensor) and param.shape == x.shape[1:2] and param.dtype in (torch.float32, x.dtype)
        if not sound or param.device != x.device:
            return wrong
    if residual is not None:
        same = isinstance(residual, Tensor) and (residual.shape, residual.dtype) == (x.shape, x.dtype)
        if not same or residual.device != x.device:
            return wrong
    if not isinstance(eps, int | float) or not 0 <= eps < math.inf:
        return wrong
    if activation not in _ACTIVATIONS or backend not in _BACKENDS:
        return wrong
    if backend == "triton" and (x.dtype not in _FUSED or x.device.type == "meta"):
        return (NotImplementedError,)
    return ()
