"""The model part: whole training iterations and inference of Mask R-CNN R50-FPN, norms compared and nothing else.

Every arm has the 4conv1fc box head and sees the same images and the same proposals, so that the RoI heads do the same
work in all of them whatever an untrained RPN proposes. Learning rate 0: the work does not change from one
iteration to the next either.
"""

import gc
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

import mmgn
from mmgn.models import fuse_gn
from mmgn.perf import timing
from mmgn.perf.results import ratios
from mmgn.perf.workload import Workload, make_batch, make_proposals

FUSED_CONFIG = "mask-rcnn_r50_fpn_fusedgn-all_2x_coco.py"
FROZEN_CONFIG = "mask-rcnn_r50_fpn_bn-frozen_2x_coco.py"
OURS = "FusedGN"
TRAINED_ARMS = ("frozen BN", "native GN", OURS)
INFERRED_ARMS = ("frozen BN", "frozen BN folded", "native GN", OURS)
PRECISIONS = ("float32", "AMP", "AMP, channels_last")


def unavailable() -> str | None:
    """Say why there can be no model part here, or None."""
    try:
        import mmdet.models  # noqa: F401
    except Exception as error:
        return f"mmdet does not import ({timing.reason(error)}); pip install 'mmgn[lite]' brings what it needs"
    return None


def build(arm: str, workload: Workload) -> tuple[Any, dict[str, Any]]:
    """Build an arm of the comparison from the repository's configs, with random weights.

    Args:
        arm: of ``INFERRED_ARMS``.
        workload: its overrides make the model smaller.

    Returns:
        The model, and what there is to say about it: of how many norms how many apply what follows them.
    """
    from mmdet.registry import MODELS
    from mmengine.registry import init_default_scope

    cfg = _model_config(arm, workload.overrides)
    init_default_scope("mmdet")
    torch.manual_seed(0)
    with _without_logs():
        model = MODELS.build(cfg)
        model.init_weights()
    if arm == OURS:
        fusion = fuse_gn(model)
        return model, {"norms": len(fusion.sites), "fused": len(fusion.fused)}
    if arm == "frozen BN folded":
        from mmcv.cnn import fuse_conv_bn

        model = fuse_conv_bn(model.eval())
    return model, {}


@contextmanager
def _without_logs() -> Iterator[None]:
    """Keep mmengine from logging the initialisation of every weight."""
    level = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(level)


def _model_config(arm: str, overrides: dict[str, Any]) -> Any:
    from mmengine.config import Config

    folder = next(iter(mmgn.__path__))
    name = FROZEN_CONFIG if arm.startswith("frozen BN") else FUSED_CONFIG
    cfg = Config.fromfile(f"{folder}/.mim/configs/mask_rcnn/{name}")
    if overrides:
        cfg.merge_from_dict({"model": overrides})
    model = cfg.model
    # Pretrained weights are on a hub, and speed does not depend on them.
    model.backbone.init_cfg = None
    if arm == "native GN":
        for part in (model.backbone, model.neck, model.roi_head.bbox_head, model.roi_head.mask_head):
            part.norm_cfg = {"type": "GN", "num_groups": part.norm_cfg.num_groups}
    return model


def fix_work(model: Any, proposals: list[Tensor]) -> None:
    """Have the RoI heads work on given proposals; the RPN still runs in full, its own proposals are dropped."""
    from mmengine.structures import InstanceData

    def on_proposals(method: Callable[..., Any], features: Any, _: Any, *args: Any, **kwargs: Any) -> Any:
        # New ones each time: mmdet renames their fields.
        given = [
            InstanceData(bboxes=p, scores=p.new_ones(len(p)), labels=p.new_zeros(len(p)).long()) for p in proposals
        ]
        return method(features, given, *args, **kwargs)

    for name in ("loss", "predict"):
        setattr(model.roi_head, name, partial(on_proposals, getattr(model.roi_head, name)))


def fix_detections(model: Any) -> None:
    """Have every proposal detected as class 0 where it is: untrained, no score passes the threshold."""
    head = model.roi_head.bbox_head
    for layer in (head.fc_cls, head.fc_reg):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    nn.init.constant_(head.fc_cls.bias[:1], 5)


class Arm:
    """One model at its work: calling it runs one iteration."""

    def __init__(
        self, name: str, workload: Workload, batch: dict[str, list[Any]], precision: str, device: torch.device
    ) -> None:
        self.device, self.batch = device, batch
        self.model, self.said = build(name, workload)
        self.model.to(device)
        if "channels_last" in precision:
            self.model.to(memory_format=torch.channels_last)
        fix_work(self.model, [p.to(device) for p in make_proposals(batch, workload)])
        self.amp = precision != "float32"
        half = torch.float16 if device.type == "cuda" else torch.bfloat16
        self.autocast = partial(torch.autocast, device.type, half, enabled=self.amp)
        self.state: Any = {}

    def __call__(self) -> None:
        """Run one iteration."""
        raise NotImplementedError

    def resident_bytes(self) -> int:
        """Return the bytes of parameters, buffers and optimizer state."""
        state = (value for values in self.state.values() for value in values.values() if isinstance(value, Tensor))
        return sum(t.nbytes for t in chain(self.model.parameters(), self.model.buffers(), state))

    def count_rois(self) -> dict[str, int]:
        """Run one iteration and return the RoIs that each head worked on."""
        counts: dict[str, int] = {"box": 0, "mask": 0}

        def count(head: str, _: nn.Module, args: tuple[Tensor, ...]) -> None:
            counts[head] += len(args[0])

        heads = {"box": self.model.roi_head.bbox_head, "mask": self.model.roi_head.mask_head}
        hooks = [module.register_forward_pre_hook(partial(count, head)) for head, module in heads.items()]
        self()
        for hook in hooks:
            hook.remove()
        return counts


class Training(Arm):
    """A training iteration: preprocessing, losses, backward and the optimizer's step, at learning rate 0."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.model.train()
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(parameters, lr=0.0, momentum=0.9, weight_decay=1e-4)
        self.state = self.optimizer.state
        # A scale at which no step overflows: a skipped step would be a shorter iteration.
        self.scaler = torch.amp.GradScaler(self.device.type, init_scale=128.0, growth_interval=10**9, enabled=self.amp)

    def __call__(self) -> None:
        """Run one iteration.

        Raises:
            FloatingPointError: the loss is not finite.
        """
        with self.autocast():
            data = self.model.data_preprocessor(self.batch, True)
            loss, _ = self.model.parse_losses(self.model(**data, mode="loss"))
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if not math.isfinite(loss.item()):
            raise FloatingPointError(f"the loss is {loss.item()}")


class Inference(Arm):
    """Inference with post-processing, every image with as many detections as the config allows."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.model.eval()
        fix_detections(self.model)

    @torch.no_grad()
    def __call__(self) -> None:
        """Run one batch."""
        with self.autocast():
            data = self.model.data_preprocessor(self.batch, False)
            self.model(**data, mode="predict")


def measure(
    device: torch.device, workload: Workload, precisions: tuple[str, ...] = PRECISIONS, **how: Any
) -> Iterator[dict[str, Any]]:
    """Measure training, then inference, in every precision; yields a row of the results each.

    Args:
        device: where to measure.
        workload: what an iteration works on.
        precisions: of ``PRECISIONS``; on a CPU AMP is bfloat16.
        how: as in :func:`mmgn.perf.timing.measure`.

    Yields:
        ``part``, ``precision``, ``arms``: per arm either ``ms`` (median), ``low_ms``, ``high_ms`` (quartiles),
        ``peak_mib`` (weights and optimizer state included), ``rois`` that each head worked on, or ``reason``; and
        ``ratios``, each arm's median over that of FusedGN.
    """
    batch = make_batch(workload)
    for kind, names in ((Training, TRAINED_ARMS), (Inference, INFERRED_ARMS)):
        for precision in precisions:
            build_arm = partial(kind, workload=workload, batch=batch, precision=precision, device=device)
            arms = _measure_arms(names, build_arm, device, **how)
            speedups = ratios(arms, OURS, "ms")
            yield {"part": kind.__name__.lower(), "precision": precision, "arms": arms, "ratios": speedups}
            # An arm is in a cycle with its own methods, and the next ones need the memory.
            gc.collect()


def _measure_arms(
    names: tuple[str, ...], build_arm: Callable[[str], Arm], device: torch.device, **how: Any
) -> dict[str, dict[str, Any]]:
    arms: dict[str, Arm] = {}
    figures: dict[str, dict[str, Any]] = {}
    for name in names:
        try:
            arm = build_arm(name)
            figures[name] = {"rois": arm.count_rois(), **arm.said}
            arms[name] = arm
        except Exception as error:
            figures[name] = {"reason": timing.reason(error)}
    timings, failures = timing.measure(arms, device, wall=True, **how)
    for name, why in failures.items():
        figures[name] = {"reason": why}
    for name, value in timings.items():
        figures[name] |= _in_ms(value) | {"peak_mib": _peak_mib(arms[name], device)}
    return figures


def _in_ms(value: timing.Timing) -> dict[str, Any]:
    seconds = {"ms": value.median, "low_ms": value.low, "high_ms": value.high}
    return {name: round(s * 1e3, 3) for name, s in seconds.items()}


def _peak_mib(arm: Arm, device: torch.device) -> float | None:
    extra = timing.peak_bytes(arm, device)
    return None if extra is None else round((extra + arm.resident_bytes()) / 2**20, 1)
