"""One table of names: which layer of mmdet's detectors is which in Detectron, detectron2, torchvision and timm.

Sources of the names: Detectron's ``modeling/{ResNet,FPN,fast_rcnn_heads,mask_rcnn_heads}.py``, whose blobs end in
``_w`` and ``_b``, a group norm's in ``_gn_s`` and ``_gn_b`` (``modeling/detector.py``, ``ConvGN``); detectron2's
``checkpoint/c2_model_loading.py``, which maps those to its own; ``torchvision/models/resnet.py``, whose names mmdet and
timm's ``resnet50_gn`` share but for the norms'. The table is read in both directions.
"""

from collections.abc import Container, Iterator, Sequence
from typing import Any, NamedTuple

# Detectron: core/config.py, PIXEL_MEANS. The others: detectron2's config/defaults.py, timm/data/constants.py × 255.
_BGR = "mean=[103.530, 116.280, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False"
_RGB = "mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True"
_DETECTRON = "mean=[102.9801, 115.9465, 122.7717], std=[1.0, 1.0, 1.0], bgr_to_rgb=False"


class Layout(NamedTuple):
    """How a code base names weights.

    Attributes:
        column: of the table below.
        prefix: of the backbone's names in a detector.
        norm: how mmdet's column spells a norm.
        detectors: whether there are names for more than a backbone.
        backbone_input: mmdet's ``data_preprocessor`` for a backbone trained there; empty where its config says it.
        detector_input: the same for a detector.
    """

    column: str
    prefix: str
    norm: str = "gn"
    detectors: bool = True
    backbone_input: str = ""
    detector_input: str = ""


# Where two of them fit, the first is taken: a backbone with mmdet's names and batch norm is torchvision's.
LAYOUTS = {
    "detectron": Layout("detectron", "", backbone_input=_BGR, detector_input=_DETECTRON),
    "detectron2": Layout("detectron2", "backbone.bottom_up.", backbone_input=_BGR, detector_input=_BGR),
    "torchvision": Layout("mmdet", "", norm="bn", detectors=False, backbone_input=_RGB),
    "timm": Layout("mmdet", "", norm="bn", detectors=False, backbone_input=_RGB),
    "mmdet": Layout("mmdet", "backbone."),
}


class Layer(NamedTuple):
    """A layer with a weight and a bias, by its name in each column."""

    mmdet: str
    detectron2: str
    detectron: str


_STEM = (
    Layer("conv1", "stem.conv1", "conv1"),
    Layer("{norm}1", "stem.conv1.norm", "conv1_gn"),
    Layer("fc", "linear", "pred"),
)
# c is Detectron's number of a stage, b the block's.
_BLOCK = (
    Layer("layer{s}.{b}.conv1", "res{c}.{b}.conv1", "res{c}_{b}_branch2a"),
    Layer("layer{s}.{b}.{norm}1", "res{c}.{b}.conv1.norm", "res{c}_{b}_branch2a_gn"),
    Layer("layer{s}.{b}.conv2", "res{c}.{b}.conv2", "res{c}_{b}_branch2b"),
    Layer("layer{s}.{b}.{norm}2", "res{c}.{b}.conv2.norm", "res{c}_{b}_branch2b_gn"),
    Layer("layer{s}.{b}.conv3", "res{c}.{b}.conv3", "res{c}_{b}_branch2c"),
    Layer("layer{s}.{b}.{norm}3", "res{c}.{b}.conv3.norm", "res{c}_{b}_branch2c_gn"),
    Layer("layer{s}.{b}.downsample.0", "res{c}.{b}.shortcut", "res{c}_{b}_branch1"),
    Layer("layer{s}.{b}.downsample.1", "res{c}.{b}.shortcut.norm", "res{c}_{b}_branch1_gn"),
)
# Detectron names a level by the stage's last block, and its coarsest lateral convolution without "_lateral".
_LEVEL = (
    Layer("neck.lateral_convs.{i}.conv", "backbone.fpn_lateral{c}", "fpn_inner_res{c}_{last}_sum{lateral}"),
    Layer("neck.lateral_convs.{i}.{norm}", "backbone.fpn_lateral{c}.norm", "fpn_inner_res{c}_{last}_sum{lateral}_gn"),
    Layer("neck.fpn_convs.{i}.conv", "backbone.fpn_output{c}", "fpn_res{c}_{last}_sum"),
    Layer("neck.fpn_convs.{i}.{norm}", "backbone.fpn_output{c}.norm", "fpn_res{c}_{last}_sum_gn"),
)
_CONV = (
    Layer("roi_head.bbox_head.shared_convs.{i}.conv", "roi_heads.box_head.conv{n}", "head_conv{n}"),
    Layer("roi_head.bbox_head.shared_convs.{i}.{norm}", "roi_heads.box_head.conv{n}.norm", "head_conv{n}_gn"),
    Layer("roi_head.mask_head.convs.{i}.conv", "roi_heads.mask_head.mask_fcn{n}", "{mask}_fcn{n}"),
    Layer("roi_head.mask_head.convs.{i}.{norm}", "roi_heads.mask_head.mask_fcn{n}.norm", "{mask}_fcn{n}_gn"),
)
_FC = (Layer("roi_head.bbox_head.shared_fcs.{i}", "roi_heads.box_head.fc{n}", "fc{caffe}"),)
_SINGLE = (
    Layer("rpn_head.rpn_conv", "proposal_generator.rpn_head.conv", "conv_rpn_fpn2"),
    Layer("rpn_head.rpn_cls", "proposal_generator.rpn_head.objectness_logits", "rpn_cls_logits_fpn2"),
    Layer("rpn_head.rpn_reg", "proposal_generator.rpn_head.anchor_deltas", "rpn_bbox_pred_fpn2"),
    Layer("roi_head.bbox_head.fc_cls", "roi_heads.box_predictor.cls_score", "cls_score"),
    Layer("roi_head.bbox_head.fc_reg", "roi_heads.box_predictor.bbox_pred", "bbox_pred"),
    Layer("roi_head.mask_head.upsample", "roi_heads.mask_head.deconv", "conv5_mask"),
    Layer("roi_head.mask_head.conv_logits", "roi_heads.mask_head.predictor", "mask_fcn_logits"),
)

STAGES = (1, 2, 3, 4)
_DEPTHS: dict[tuple[tuple[int, ...], bool], str] = {
    ((2, 2, 2, 2), False): "ResNet-18",
    ((3, 4, 6, 3), False): "ResNet-34",
    ((3, 4, 6, 3), True): "ResNet-50",
    ((3, 4, 23, 3), True): "ResNet-101",
    ((3, 8, 36, 3), True): "ResNet-152",
}


def table(
    layout: Layout, blocks: Sequence[int], *, detector: bool, norm: str | None = None, mask: str = "_mask"
) -> dict[str, str]:
    """Return all names of a layout's weights.

    Args:
        layout: of which code base.
        blocks: residual blocks of each stage.
        detector: of a whole detector, not of a backbone alone.
        norm: how mmdet's column spells a norm [as the layout does].
        mask: how Detectron begins the names of the mask head's convolutions: ``_[mask]`` where they have no norm.

    Returns:
        mmdet's key, its norms spelled ``gn``, and the layout's.
    """
    spelling = {"norm": norm or layout.norm, "mask": mask}
    names = {}
    for layer, values in _layers(blocks, detector and layout.detectors):
        ours = layer.mmdet.format(norm="gn", **values)
        theirs = getattr(layer, layout.column).format(**spelling, **values)
        if values["trunk"] and detector:
            ours, theirs = LAYOUTS["mmdet"].prefix + ours, layout.prefix + theirs
        for parameter in ("weight", "bias"):
            names[f"{ours}.{parameter}"] = theirs + _suffix(layout, layer, parameter)
    return names


def _layers(blocks: Sequence[int], detector: bool) -> Iterator[tuple[Layer, dict[str, Any]]]:
    yield from ((layer, dict(trunk=True)) for layer in _STEM)
    for s, count in zip(STAGES, blocks, strict=True):
        yield from ((layer, dict(trunk=True, s=s, c=s + 1, b=b)) for b in range(count) for layer in _BLOCK)
    if not detector:
        return
    for i, count in enumerate(blocks):
        level = dict(trunk=False, i=i, c=i + 2, last=count - 1, lateral="" if i == 3 else "_lateral")
        yield from ((layer, level) for layer in _LEVEL)
    # As many as any head has.
    yield from ((layer, dict(trunk=False, i=i, n=i + 1)) for i in range(8) for layer in _CONV)
    yield from ((layer, dict(trunk=False, i=i, n=i + 1, caffe=i + 6)) for i in range(2) for layer in _FC)
    yield from ((layer, dict(trunk=False)) for layer in _SINGLE)


def _suffix(layout: Layout, layer: Layer, parameter: str) -> str:
    if layout.column != "detectron":
        return f".{parameter}"
    scale = "_s" if layer.detectron.endswith("_gn") else "_w"
    return scale if parameter == "weight" else "_b"


def count_blocks(keys: Container[str], layout: Layout, *, detector: bool) -> tuple[int, ...]:
    """Count the residual blocks of each stage among a layout's keys."""
    first, prefix = _BLOCK[0], layout.prefix if detector else ""

    def has(s: int, b: int) -> bool:
        name = getattr(first, layout.column).format(s=s, c=s + 1, b=b)
        return prefix + name + _suffix(layout, first, "weight") in keys

    def count(s: int) -> int:
        b = 0
        while has(s, b):
            b += 1
        return b

    return tuple(count(s) for s in STAGES)


def stages_prefix(layout: Layout, *, detector: bool) -> str:
    """Return what the names of all residual blocks begin with."""
    return (layout.prefix if detector else "") + getattr(_BLOCK[0], layout.column).partition("{")[0]


def depth_name(blocks: tuple[int, ...], bottleneck: bool) -> str:
    """Return such as 'ResNet-50', which a ResNeXt of its depth is called too."""
    listed = ", ".join(map(str, blocks))
    return _DEPTHS.get((blocks, bottleneck), f"a ResNet of {listed} {'bottleneck' if bottleneck else 'basic'} blocks")
