"""SpeedHook: how long a detector takes per image, measured after a test on the test's images."""

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import autocast
from torch.utils.data import DataLoader

from mmgn.engine.hooks import run_record

#: What the time of an image is the time of.
INCLUDES = (
    "model.test_step: normalisation, network, NMS, masks pasted into the image's own size; without reading and "
    "resizing images, encoding masks and the metric"
)


@HOOKS.register_module()
class SpeedHook(Hook):
    """Times ``model.test_step`` after a test, and adds the result to the evaluation of ``run.json``.

    ``ms_per_image`` is there the median over batches of a batch's time over its images, from an idle device to an idle
    device; ``speed`` says how it was measured. Images are loaded between the timed batches, by no worker, so that
    nothing else is at work while the model is. Of several processes the main one measures, by itself.

    Args:
        batch_size: Images a batch, fewer where the data set has fewer. The test's own batch size plays no part.
        num_images: Images timed, fewer where the data set has fewer.
        warm_up: Batches before those, during which compilation, autotuning and the allocator come to rest.

    Example:
        >>> custom_hooks = [dict(type="SpeedHook", batch_size=1)]
    """

    def __init__(self, batch_size: int = 1, num_images: int = 200, warm_up: int = 10) -> None:
        if min(batch_size, num_images, warm_up) < 1:
            raise ValueError(
                f"batch_size, num_images and warm_up must be at least 1, got {batch_size}, {num_images} and {warm_up}"
            )
        self.batch_size = batch_size
        self.num_images = num_images
        self.warm_up = warm_up

    def after_test(self, runner: Any) -> None:
        """Measure, log and record."""
        if not is_main_process():
            return
        size, batches = _batches(runner.test_dataloader, self.batch_size)
        count = min(-(-self.num_images // size), len(runner.test_dataloader.dataset) // size)
        device = next(runner.model.parameters()).device
        fp16 = getattr(runner.test_loop, "fp16", False)
        with torch.no_grad(), autocast(enabled=fp16):
            for batch in itertools.islice(batches, self.warm_up):
                runner.model.test_step(batch)
            seconds = [_seconds(runner.model.test_step, batch, device) for batch in itertools.islice(batches, count)]
        low, median, high = (1e3 * value / size for value in _quartiles(seconds))
        speed = {
            "ms_per_image_quartiles": [low, high],
            "images_per_second": count * size / sum(seconds),
            "batch_size": size,
            "num_images": count * size,
            "warm_up_batches": self.warm_up,
            "autocast": fp16,
            "includes": INCLUDES,
        }
        run_record.add_to_evaluation(runner, {"ms_per_image": median, "speed": speed})
        runner.logger.info(
            f"SpeedHook: {median:.4g} ms/image, the median of {count * size} images in batches of {size} after "
            f"{self.warm_up} batches of warm-up (quartiles {low:.4g} and {high:.4g}; all together "
            f"{speed['images_per_second']:.4g} images/s) on {run_record.device_name(device)}"
            f"{', under autocast' if fp16 else ''}. It is the time of {INCLUDES}."
        )


def _batches(loader: DataLoader, batch_size: int) -> tuple[int, Iterator[Any]]:
    """Return the size of full batches of the loader's data set, and such batches for ever."""
    size = min(batch_size, len(loader.dataset))  # type: ignore[arg-type]
    own = DataLoader(loader.dataset, size, collate_fn=loader.collate_fn, pin_memory=loader.pin_memory, drop_last=True)
    return size, itertools.chain.from_iterable(itertools.repeat(own))


def _seconds(step: Callable[[Any], object], batch: Any, device: torch.device) -> float:
    _wait_for(device)
    start = time.perf_counter()
    step(batch)
    _wait_for(device)
    return time.perf_counter() - start


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _quartiles(values: list[float]) -> list[float]:
    return statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
