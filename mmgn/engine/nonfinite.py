"""Where inf and NaN in a training come from: the parameters, the images, or the first module that makes one."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class NonFiniteError(ArithmeticError):
    """A training that would go on with inf or NaN: where they come from, and what helps."""


def bad_names(state: Iterable[tuple[str, Tensor]]) -> list[str]:
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

    Raises:
        RuntimeError: there are compiled modules, which before torch 2.6 call no hook that has come since.
    """
    set_stance = getattr(torch.compiler, "set_stance", None)
    if set_stance is None and any(_is_compiled(module) for module in model.modules()):
        raise RuntimeError(f"torch {torch.__version__} cannot run compiled modules eagerly; torch 2.6 can")
    found: list[str] = []
    names = {module: name for name, module in model.named_modules() if name}

    def look(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if not found and not is_finite(output):
            found.append(f"{names[module]} ({type(module).__name__}), {_given((args, kwargs))}")

    with contextlib.ExitStack() as stack:
        for module in names:
            handle = module.register_forward_hook(look, with_kwargs=True)
            stack.callback(handle.remove)
        stack.enter_context(torch.no_grad())
        if set_stance is not None:
            stack.enter_context(set_stance("force_eager"))
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
        meta = getattr(sample, "metainfo", {})
        # mmpretrain's id is the sample's; mmseg has paths alone.
        id_, path = meta.get("img_id", meta.get("sample_idx")), meta.get("img_path")
        text = f"{id_} ({path})" if id_ is not None and path else path or id_
        if text is not None:
            names.append(str(text))
    return names


def _is_compiled(module: nn.Module) -> bool:
    # By module.compile(), or by torch.compile(module).
    return getattr(module, "_compiled_call_impl", None) is not None or hasattr(module, "_orig_mod")


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
