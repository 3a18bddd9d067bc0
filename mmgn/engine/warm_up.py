"""Compiles a config's fused kernels before training does: on its GPU, or without one for the GPU's architecture.

With a GPU, iterations run at all sizes of the config's images. Without one, a single iteration runs on the CPU, for the
heads behind the proposals, whose kernels do not depend on an image's size; then every size passes through the model as
a shape without values, as far as no value is asked for. For each call of group norm on the way, the launcher compiles
what it would launch.
"""

import math
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mmgn.engine.image_sizes import Size, batch_sizes, padded
from mmgn.engine.model import build_model
from mmgn.layers import FusedGN
from mmgn.models import fuse_gn
from mmgn.ops import group_norm
from mmgn.ops.triton.ahead import Norm, compile_for
from mmgn.ops.triton.launcher import DTYPES, memory_layout
from mmgn.ops.triton.problem import Problem
from mmgn.perf.workload import Workload, make_batch


@dataclass(frozen=True)
class Work:
    """What a config's training and test iterations work on.

    Attributes:
        train: sizes of training batches.
        test: sizes of test batches.
        train_images: images of a training batch.
        test_images: images of a test batch.
        amp: dtype of activations under mixed precision, None without.
        channels_last: whether the model is in that memory format.
    """

    train: tuple[Size, ...]
    test: tuple[Size, ...]
    train_images: int
    test_images: int
    amp: torch.dtype | None = None
    channels_last: bool = False

    @classmethod
    def of(cls, cfg: Config, sizes: Iterable[Size] = (), amp: str | None = None, channels_last: bool = False) -> "Work":
        """Read it off a config.

        Args:
            cfg: the config.
            sizes: (H, W) of images, in the place of the config's own.
            amp: 'float16' or 'bfloat16'; without it what the config's ``AmpOptimWrapper`` says, if it has one.
            channels_last: as above.

        Raises:
            ValueError: the config does not tell the sizes.
        """
        given = {padded(cfg, size) for size in sizes}
        optim = cfg.get("optim_wrapper") or {}
        if amp is None and optim.get("type") in ("AmpOptimWrapper", "DeviceAmpOptimWrapper"):
            amp = optim.get("dtype") or "float16"

        def of_split(split: str) -> tuple[tuple[Size, ...], int]:
            images = (cfg.get(f"{split}_dataloader") or {}).get("batch_size", 1)
            return tuple(sorted(given or batch_sizes(cfg, split))), images

        (train, train_images), (test, test_images) = of_split("train"), of_split("test")
        dtype = None if amp is None else getattr(torch, amp)
        return cls(train, test, train_images, test_images, dtype, channels_last)


def build_fused(cfg: Config) -> Any:
    """Build a config's model, fused where its hooks fuse it; the weights are random.

    Raises:
        ValueError: as :func:`mmgn.engine.model.build_model`.
    """
    model = build_model(cfg)
    if any(str(hook.get("type")).endswith("FuseGNHook") for hook in cfg.get("custom_hooks") or ()):
        fuse_gn(model)
    return model


def count_norms(model: nn.Module) -> int:
    """Return how many FusedGN a model has."""
    return sum(isinstance(module, FusedGN) for module in model.modules())


def warm_up(model: Any, work: Work, arch: int | None = None) -> None:
    """Compile the kernels of a model's work; a :class:`mmgn.ops.triton.ahead.Tally` made before counts them.

    Args:
        model: of :func:`build_fused`; of no use afterwards.
        work: what it works on.
        arch: compute capability, without the dot, of a GPU that is not here; None for the one that is.
    """
    if arch is None:
        run(model, work, torch.device("cuda"))
    else:
        compile_for(arch, record(model, work))


def run(model: Any, work: Work, device: torch.device) -> None:
    """Train and test at every size."""
    model.to(device)
    if work.channels_last:
        model.to(memory_format=torch.channels_last)
    with torch.autocast(device.type, work.amp, enabled=work.amp is not None):
        for size in work.train:
            loss, _ = model.parse_losses(_loss(model, size, work.train_images))
            loss.backward()
            model.zero_grad()
        model.eval()
        for size in work.test:
            with torch.no_grad():
                model(**model.data_preprocessor(_batch(size, work.test_images), False), mode="predict")


def record(model: Any, work: Work) -> list[Norm]:
    """Return the calls of group norm that training and testing make, found on the CPU; the model ends without values.

    Under mixed precision a norm is taken to be given what a convolution leaves: the half precision.
    """
    # A checkpointed block would not show which gradients it wants.
    for module in model.modules():
        if getattr(module, "with_cp", False):
            module.with_cp = False
    calls = _Calls(work)
    with calls:
        _loss(model, min(work.train, key=math.prod), 1)
        model.to("meta")
        for size in work.train:
            _pass_shapes(model, size, work.train_images)
        model.eval()
        with torch.no_grad():
            for size in work.test:
                _pass_shapes(model, size, work.test_images)
    return list(calls.seen)


def _batch(size: Size, images: int) -> dict[str, list[Any]]:
    batch = make_batch(Workload(images=images, height=size[0], width=size[1]))
    for sample in batch["data_samples"]:
        # The class that every model has.
        sample.gt_instances.labels.zero_()
    return batch


def _loss(model: Any, size: Size, images: int) -> dict[str, Any]:
    model.train()
    return model(**model.data_preprocessor(_batch(size, images), True), mode="loss")


def _pass_shapes(model: nn.Module, size: Size, images: int) -> None:
    from mmdet.structures import DetDataSample

    samples = [DetDataSample(metainfo={"img_shape": size, "batch_input_shape": size}) for _ in range(images)]
    # Where a value is asked for, what depends on the image's size is behind us.
    with suppress(Exception):
        model(torch.empty(images, 3, *size, device="meta"), samples, mode="tensor")


@dataclass
class _Calls(TorchFunctionMode):
    """Sees every call of group norm, and what it would be at work."""

    work: Work
    #: In order of appearance.
    seen: dict[Norm, None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is group_norm:
            self._see(*args, **kwargs)
        return func(*args, **kwargs)

    def _see(
        self,
        x: Tensor,
        num_groups: int,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
        activation: str,
        residual: Tensor | None,
        backend: str,
    ) -> None:
        if backend == "native" or x.dtype not in DTYPES or not x.numel():
            return
        param = weight if weight is not None else bias
        wanted = tuple(t is not None and t.requires_grad for t in (x, weight, bias, residual))
        problem = Problem(
            n=x.shape[0],
            c=x.shape[1],
            s=x.shape[2:].numel(),
            groups=num_groups,
            dtype=DTYPES[self.work.amp or x.dtype],
            param_dtype="float32" if param is None else DTYPES[param.dtype],
            layout="channels_last" if self.work.channels_last and x.dim() in (4, 5) else memory_layout(x),
            activation=activation,
            residual=residual is not None,
            weight=weight is not None,
            bias=bias is not None,
            eps=eps,
        )
        grads = wanted if torch.is_grad_enabled() and any(wanted) else None
        self.seen[Norm(problem, grads)] = None  # type: ignore[arg-type]
