"""dry_run: one update of a training on its real data, with what it says of memory, time and disk; leaves nothing."""

import math
import time
from collections.abc import Iterable
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from io import StringIO
from tempfile import TemporaryDirectory
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapperDict
from torch import Tensor

from mmgn.engine.image_sizes import batch_sizes
from mmgn.engine.launch import build_runner
from mmgn.engine.memory import device_of, memory_kind, peak_memory_mb, restart_peak
from mmgn.engine.model import unwrapped
from mmgn.engine.norm_table import norm_table
from mmgn.engine.training import train
from mmgn.models.listing import aligned


class _Done(Exception):
    """The update is over."""


@dataclass
class _Measurement(Hook):
    """Measures the iterations up to the first update, and ends the training."""

    # The update with all hooks but those of the iteration's end.
    priority = "VERY_HIGH"

    losses: dict[str, float] | None = None
    images: int = 0
    objects: int = 0
    size: tuple[int, ...] = ()
    seconds: float = 0.0
    base_mb: float = 0.0
    peak_mb: float = 0.0

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if self.losses is None:
            device = device_of(runner)
            restart_peak(device)
            self.base_mb = peak_memory_mb(device) or 0.0
        self.images += len(data_batch["inputs"])
        self.objects += sum(len(s.gt_instances) for s in data_batch["data_samples"] if "gt_instances" in s)
        self._start = time.perf_counter()

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self.losses = {name: float(value.detach()) for name, value in (outputs or {}).items()}
        self.seconds += time.perf_counter() - self._start
        self.peak_mb = max(self.peak_mb, peak_memory_mb(device_of(runner)) or 0.0)
        shapes = [tuple(image.shape[-2:]) for image in data_batch["inputs"]]
        self.size = max((self.size, *shapes), key=math.prod)
        wrapper = runner.optim_wrapper
        # Several optimizers count for themselves.
        if isinstance(wrapper, OptimWrapperDict) or wrapper.should_update():
            raise _Done


def dry_run(cfg: Config) -> str:
    """Train up to the first update in a folder that is removed again, and tell what it took.

    Args:
        cfg: changed in place.

    Returns:
        The report; on each rank its own.

    Raises:
        ValueError: a loss that is not finite.
        TrainingError: as :func:`mmgn.engine.training.train`.
    """
    with TemporaryDirectory(prefix="mmgn-dry-run-") as folder:
        cfg.work_dir, cfg.log_level = folder, "WARNING"
        # Trackers outside this machine, too.
        cfg.pop("visualizer", None)
        cfg.custom_hooks = [hook for hook in cfg.get("custom_hooks") or () if hook.get("type") not in _LASTING]
        with redirect_stdout(StringIO()):
            runner = build_runner(cfg)
        measured = _Measurement()
        runner.register_hook(measured)
        with suppress(_Done):
            train(runner)
        assert measured.losses is not None
        bad = [name for name, value in measured.losses.items() if not math.isfinite(value)]
        if bad:
            raise ValueError(f"the first loss is not finite: {', '.join(f'{n} {measured.losses[n]}' for n in bad)}.")
        return _report(cfg, runner, measured)


#: Hooks whose work is a file or a console that a dry run has no use for.
_LASTING = ("ProgressHook", "ResultsHook", "RunRecordHook", "ProfileHook")


def _report(cfg: Config, runner: Any, measured: _Measurement) -> str:
    model = unwrapped(runner.model)
    memory, checkpoint_mb = _memory(runner, model, measured)
    iters, epoch = runner.max_iters, len(runner.train_dataloader)
    losses = ", ".join(f"{name} {value:.4g}" for name, value in (measured.losses or {}).items() if "loss" in name)
    # A classifier's images have none.
    objects = f", {measured.objects} objects" if measured.objects else ""
    lines = [
        ("data", f"{len(runner.train_dataloader.dataset)} images; {epoch} iterations are an epoch, {iters} in all"),
        ("batch", _batch(cfg, runner)),
        (
            "update",
            f"{measured.images} images{objects} on this rank in {measured.seconds:.2f} s, the first and slowest",
        ),
        ("losses", losses),
        *memory,
        ("checkpoint", f"{checkpoint_mb:.0f} MiB each"),
    ]
    head = f"dry run of {cfg.filename} on {device_of(runner)}"
    # Its warnings are pre-flight's.
    return "\n".join([head, *aligned(lines), "", norm_table(model, cfg).text()])


def _batch(cfg: Config, runner: Any) -> str:
    per_gpu, world = runner.train_dataloader.batch_sampler.batch_size, get_world_size()
    counts = cfg.optim_wrapper.get("accumulative_counts", 1)
    text = f"{per_gpu} images x {world} {'process' if world == 1 else 'processes'}"
    text += f" x {counts} accumulated" if counts > 1 else ""
    rate = max(group.get("initial_lr", group["lr"]) for group in runner.optim_wrapper.param_groups)
    return f"{text} = {per_gpu * world * counts} an update; lr {rate:.4g} after warm-up"


def _memory(runner: Any, model: Any, measured: _Measurement) -> tuple[list[tuple[str, str]], float]:
    """Return lines on the memory, and the MiB of a checkpoint."""
    parameters = _mb(model.parameters())
    gradients = _mb(p for p in model.parameters() if p.requires_grad)
    wrapper = runner.optim_wrapper
    optimizers = [each.optimizer for each in (wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper])]
    states = [state for each in optimizers for state in each.state.values()]
    optimizer = _mb(value for state in states for value in state.values() if isinstance(value, Tensor))
    buffers = _mb(model.buffers())
    # CUDA's peak has the parameters; that of a process before the iteration is its libraries too.
    cuda = device_of(runner).type == "cuda"
    known = parameters + buffers + gradients if cuda else measured.base_mb + gradients
    activations = max(measured.peak_mb - known, 0.0)
    kind = memory_kind(device_of(runner))
    height, width = measured.size
    largest = _largest(runner.cfg)
    growth = max(math.prod(largest) / math.prod(measured.size) - 1, 0.0) if largest else 0.0
    estimate = measured.peak_mb + optimizer + growth * activations
    sizes = f"activations of {largest[0]} x {largest[1]}, the largest images" if largest else "the activations below"
    there = f" of {torch.cuda.get_device_properties(device_of(runner)).total_memory / 2**20:.0f}" if cuda else ""
    lines = [
        ("peak", f"{measured.peak_mb:.0f} MiB ({kind}) in this update, measured"),
        ("estimate", f"{estimate:.0f}{there} MiB from the second update on, with the optimizer's and {sizes}"),
        ("parameters", f"{parameters:.1f} MiB, and {buffers:.1f} of buffers"),
        ("gradients", f"{gradients:.1f} MiB"),
        ("optimizer", f"{optimizer:.1f} MiB"),
        (
            "activations",
            f"{activations:.1f} MiB and workspace, at images of up to {height} x {width}; they grow with the pixels",
        ),
    ]
    return lines, parameters + buffers + optimizer


def _mb(tensors: Iterable[Tensor]) -> float:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 2**20


def _largest(cfg: Config) -> tuple[int, int] | None:
    """Return the largest size of images that a config's training makes, None where it does not tell."""
    try:
        return max(batch_sizes(cfg, "train"), key=math.prod)
    except ValueError:
        return None
