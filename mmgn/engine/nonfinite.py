"""Where inf and NaN in a training come from: the parameters, the images, or the first module that makes one."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class NonFiniteError(ArithmeticError):
    """A training that would go on with inf or NaN: where they come from, and what helps."""


def parameters(state: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Return the names of the tensors that hold inf or NaN; waits for the GPU once."""
    named = [(name, tensor) for name, tensor in state if tensor.is_floating_point() and tensor.numel()]
    if not named:
        return []
    finite = torch.stack([tensor.detach().isfinite().all() for _, tensor in named]).tolist()
    return [name for (name, _), all_finite in zip(named, finite, strict=True) if not all_finite]


def is_finite(value: Any) -> bool:
    """Whether no tensor in a value, of any nesting, holds inf or NaN."""
    return all(bool(tensor.isfinite().all()) for tensor in _floats(value))


def first_module(model: nn.Module, forward: Callable[[], Any]) -> str | None:
    """Run a forward again without gradients, and tell the first module whose output holds inf or NaN.

    Args:
        model: of the module.
        forward: runs it, from the random states that are to be.

    Returns:
        Its name, its class, and what it was given; None where all outputs are finite.
    """
    found: list[str] = []
    names = {module: name for name, module in model.named_modules() if name}

    def look(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if not found and not is_finite(output):
            found.append(f"{names[module]} ({type(module).__name__}), {_given((args, kwargs))}")

    # A compiled module calls no hook that has come since.
    eager = getattr(torch.compiler, "set_stance", contextlib.nullcontext)("force_eager")
    with contextlib.ExitStack() as stack:
        for module in names:
            handle = module.register_forward_hook(look, with_kwargs=True)
            stack.callback(handle.remove)
        stack.enter_context(torch.no_grad())
        stack.enter_context(eager)
        # To the end: the other ranks wait for its collectives.
        forward()
    return found[0] if found else None


def images(samples: Any) -> list[str]:
    """Return the ids and paths of a batch's images, as far as its data samples tell."""
    if isinstance(samples, Mapping):
        return [name for part in samples.values() for name in images(part)]
    if not isinstance(samples, (list, tuple)):
        return []
    names = []
    for sample in samples:
        known = [sample.get(key) for key in ("img_id", "img_path")] if hasattr(sample, "metainfo") else []
        id_, path = known or (None, None)
        text = f"{id_} ({path})" if id_ is not None and path else path or id_
        if text is not None:
            names.append(str(text))
    return names


def _given(value: Any) -> str:
    tensors = [tensor for tensor in _floats(value) if tensor.numel()]
    if not all(is_finite(tensor) for tensor in tensors):
        return "which was given inf or NaN already, by a step between two modules"
    if not tensors:
        return "which was given no floating-point tensor"
    largest = max(tensors, key=lambda tensor: float(tensor.detach().abs().max()))
    dtype = str(largest.dtype).removeprefix("torch.")
    return f"which was given {dtype} values up to {float(largest.detach().abs().max()):.3g}"


def _floats(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping):
        yield from _floats(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _floats(item)
