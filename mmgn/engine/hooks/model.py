"""ChannelsLastHook and CompileHook: the runner's model in another memory format, and compiled."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch import nn

from mmgn.engine.model import unwrapped


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Has the model and its images in ``torch.channels_last``, in training, validation and test.

    Keys and values of checkpoints stay what they are.

    Example:
        >>> custom_hooks = [dict(type="ChannelsLastHook")]
    """

    # Before what copies the model in before_run, such as EMAHook.
    priority = "HIGH"

    def __init__(self) -> None:
        self._model: nn.Module | None = None

    def before_run(self, runner: Any) -> None:
        """Change the format."""
        model = unwrapped(runner.model)
        # A runner that trains and then tests comes here twice.
        if model is self._model:
            return
        self._model = model.to(memory_format=torch.channels_last)
        model.register_forward_pre_hook(_images_to_channels_last, with_kwargs=True)


def _images_to_channels_last(model: nn.Module, args: Any, kwargs: Any) -> Any:
    def convert(value: Any) -> Any:
        is_image = isinstance(value, torch.Tensor) and value.dim() == 4
        return value.contiguous(memory_format=torch.channels_last) if is_image else value

    # The images are the first argument, by place from train_step, by name from elsewhere.
    args = tuple(convert(value) for value in args)
    return args, {key: convert(value) if key == "inputs" else value for key, value in kwargs.items()}


@HOOKS.register_module()
class CompileHook(Hook):
    """Compiles parts of a detector by ``torch.compile``: its backbone and its neck.

    mmengine's own ``compile=...`` takes the whole ``train_step`` instead. In a detector that is proposals, sampling
    and losses over lists of any length: graph breaks and recompilations, more than there is to win. Backbone and
    neck are tensors in, tensors out, and most of the arithmetic. Images of many sizes are compiled for as shapes
    without a value, after the second one.

    Args:
        backend: of ``torch.compile``.
        parts: names of the model's modules; those that it lacks are left out.
        **options: of ``torch.compile``.

    Raises:
        ValueError: no such backend.

    Example:
        >>> custom_hooks = [dict(type="CompileHook", backend="inductor", mode="max-autotune-no-cudagraphs")]
    """

    def __init__(self, backend: str = "inductor", parts: Sequence[str] = ("backbone", "neck"), **options: Any) -> None:
        check_backend(backend)
        self.backend, self.parts, self.options = backend, tuple(parts), options

    def before_train(self, runner: Any) -> None:
        """Compile; after FuseGNHook, weights and EMA, so that none of them sees the difference."""
        model = unwrapped(runner.model)
        found = {name: module for name in self.parts if isinstance(module := getattr(model, name, None), nn.Module)}
        if not found:
            raise ValueError(f"CompileHook: {type(model).__name__} has none of {', '.join(self.parts)}; name its parts")
        for module in found.values():
            module.compile(backend=self.backend, **self.options)
        names = " and ".join(found)
        runner.logger.info(f"CompileHook: {names} by {self.backend}; the first iterations of a size are slow")


def check_backend(name: str) -> None:
    """Check that ``torch.compile`` has a backend.

    Raises:
        ValueError: it has not; the message names those it has.
    """
    if name not in torch.compiler.list_backends(exclude_tags=()):
        known = ", ".join(torch.compiler.list_backends())
        raise ValueError(
            f"no backend {name!r} of torch.compile here; there are {known}; and for tests eager, aot_eager"
        )
