"""One config swapped on trial: whether its model builds and runs as it did, with no batch norm left.

Weights are random, images small, and of proposals there are few: what is asked is whether a model runs at all.
"""

import gc
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mmgn.engine.norm_swap.build import build
from mmgn.engine.norm_swap.request import SwapRequest
from mmgn.engine.norm_swap.source import Source
from mmgn.engine.norm_swap.swap import NothingToSwapError, swap_norm
from mmgn.engine.norm_swap.table import swapped_rows
from mmgn.models import fuse_gn
from mmgn.models.norms import is_batch_norm, norm_layers
from mmgn.perf.workload import Workload, make_batch

#: What may become of a config; all but the last are no worse than before the swap.
RUNS = "swapped, runs"
BUILDS = "swapped, builds; does not run here before the swap either"
NOTHING = "no batch or group norm"
NO_MODEL = "no model, a part of other configs"
UNBUILT = "does not build here before the swap either"
SAME = "same model as one before"
WORSE = "worse than before the swap"

_SIZES = (96, 320)
_FEW = 20


@dataclass(frozen=True)
class Outcome:
    """What became of a config.

    Attributes:
        config: its name.
        category: one of this module's constants.
        reason: why, where there is more to say than the category.
    """

    config: str
    category: str
    reason: str = ""


def try_swap(
    name: str,
    source: Source,
    request: SwapRequest | None = None,
    run_before: bool = True,
    passed: Callable[[], None] = lambda: None,
) -> Outcome:
    """Swap a config, and hold its model against the one before.

    Args:
        name: for the outcome.
        source: the config.
        request: what to swap to.
        run_before: whether to run the model before the swap, and so after it.
        passed: called once the model before the swap is done with.
    """
    torch.manual_seed(0)
    try:
        before = build(source.cfg["model"], source.scope)
    # Whatever a constructor raises; below too.
    except Exception as error:
        return Outcome(name, UNBUILT, short(error))
    if not norm_layers(before):
        return Outcome(name, NOTHING)
    ran, why_not = _first_run(before) if run_before else (None, "its process crashes")
    # Two at once may be too much for a small machine.
    del before
    gc.collect()
    passed()
    try:
        return _after(name, source, request or SwapRequest(), ran, why_not)
    except NothingToSwapError:
        return Outcome(name, NOTHING)
    except Exception as error:
        return Outcome(name, WORSE, short(error))


def run(model: Any, mode: str, size: int) -> None:
    """Run a detector on two small square images.

    Args:
        model: with any weights; changed to propose few objects.
        mode: 'predict' or 'loss', as in its ``forward``.
        size: side of the images.

    Raises:
        Exception: whatever the model raises.
    """
    for module in model.modules():
        _propose_few(getattr(module, "test_cfg", None))
        if hasattr(module, "init_proposal_bboxes"):
            # Sparse R-CNN's and QueryInst's: the whole image each; random ones have sides below 0.
            module.init_weights()
    batch = make_batch(Workload(images=2, height=size, width=size))
    for sample in batch["data_samples"]:
        # The class that every model has.
        sample.gt_instances.labels.zero_()
        # What CornerNet's test pipeline leaves.
        sample.set_metainfo({"border": (0, size, 0, size), "flip": False, "flip_direction": None, "img_id": 0})
        if not getattr(model, "with_rpn", True):
            # Fast R-CNN's come with the data.
            sample.proposals = sample.gt_instances
    training = mode == "loss"
    if _wants_clip(model.data_preprocessor, training):
        batch = _clip(batch)
    model.train(training)
    with torch.set_grad_enabled(training):
        model(**model.data_preprocessor(batch, training), mode=mode)


def short(error: BaseException) -> str:
    """Return an error in a line, with the place that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    first = " ".join(next(iter(str(error).splitlines()), "").split())
    return f"{type(error).__name__}: {first[:160]}{place}"


def _after(name: str, source: Source, request: SwapRequest, ran: tuple[str, int] | None, why_not: str) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        swap = swap_norm(source, request, Path(folder, "swapped.py"))
    left = [layer.name for layer in norm_layers(swap.after) if is_batch_norm(layer.module)]
    if left:
        return Outcome(name, WORSE, f"{len(left)} batch norms are left, the first {left[0]}")
    # Raises where the optimizer cannot be built any more.
    swapped_rows(swap)
    if ran is None:
        return Outcome(name, BUILDS, why_not)
    # As FuseGNHook does; where there is no FusedGN it changes nothing.
    fuse_gn(swap.after)
    run(swap.after, *ran)
    return Outcome(name, RUNS)


def _first_run(model: Any) -> tuple[tuple[str, int] | None, str]:
    """Return the first mode and size that a model runs in, or the first error."""
    errors = []
    for size in _SIZES:
        for mode in ("predict", "loss"):
            try:
                run(model, mode, size)
            except Exception as error:
                errors.append(short(error))
            else:
                return (mode, size), ""
    return None, errors[0]


def _wants_clip(preprocessor: Any, training: bool) -> bool:
    from mmdet.models import TrackDataPreprocessor

    return isinstance(preprocessor, TrackDataPreprocessor) and not (training and preprocessor.use_det_processor)


def _clip(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Make a batch's images the frames of one video, the first of them the key frame."""
    from mmdet.structures import TrackDataSample

    frames = batch["data_samples"]
    for index, frame in enumerate(frames):
        frame.set_metainfo({"frame_id": index, "ori_video_length": len(frames)})
        frame.gt_instances.instances_ids = torch.arange(len(frame.gt_instances))
    video = TrackDataSample(metainfo={"key_frames_inds": [0], "ref_frames_inds": [1], "ori_video_length": len(frames)})
    video.video_data_samples = frames
    return {"inputs": [torch.stack(batch["inputs"])], "data_samples": [video]}


def _propose_few(node: Any) -> None:
    if not isinstance(node, dict):
        return
    for value in node.values():
        _propose_few(value)
    # Not without nms_pre, where the number may be that of learned queries.
    for key in ("nms_pre", "max_per_img") if "nms_pre" in node else ():
        if isinstance(node.get(key), int):
            node[key] = min(node[key], _FEW)
