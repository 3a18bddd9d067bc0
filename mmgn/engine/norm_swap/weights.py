"""What a swapped backbone starts from: published group norm weights, the batch norm ones' convolutions, or nothing."""

from collections.abc import Iterator
from typing import Any

from mmgn.engine.norm_swap.placement import Keys, at, defaults, registered_class, typed
from mmgn.engine.norm_swap.request import DEFAULT_GROUPS, SwapRequest, part_of

# Detectron's: BGR, the mean only.
_DETECTRON = {"mean": [103.530, 116.280, 123.675], "std": [1.0, 1.0, 1.0], "bgr_to_rgb": False}
#: Torchvision's.
IMAGENET = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375], "bgr_to_rgb": True}

#: By class, depth and whether the convolutions' weights are standardised (ConvWS); all of 32 groups.
_PUBLISHED = {
    ("ResNet", 50, False): ("open-mmlab://detectron/resnet50_gn", _DETECTRON),
    ("ResNet", 101, False): ("open-mmlab://detectron/resnet101_gn", _DETECTRON),
    ("ResNet", 50, True): ("open-mmlab://jhu/resnet50_gn_ws", IMAGENET),
    ("ResNet", 101, True): ("open-mmlab://jhu/resnet101_gn_ws", IMAGENET),
    ("ResNeXt", 50, False): ("open-mmlab://jhu/resnext50_32x4d_gn", IMAGENET),
    ("ResNeXt", 101, False): ("open-mmlab://jhu/resnext101_32x4d_gn", IMAGENET),
    ("ResNeXt", 50, True): ("open-mmlab://jhu/resnext50_32x4d_gn_ws", IMAGENET),
    ("ResNeXt", 101, True): ("open-mmlab://jhu/resnext101_32x4d_gn_ws", IMAGENET),
}
# With other values the weights do not fit.
_PLAIN = {"base_channels": 64, "stem_channels": None, "in_channels": 3, "deep_stem": False, "avg_down": False}


def start_backbones(model: dict[str, Any], swapped: set[Keys], request: SwapRequest) -> list[str]:
    """Settle what each backbone starts from and what is frozen in it, in the config, and return what there is to say.

    Args:
        model: a model's config with its new norms.
        swapped: paths of the backbones that had batch norm.
        request: whether from scratch, and with which groups.
    """
    said = []
    for path, backbone in _backbones(model):
        name = ".".join(map(str, path))
        if request.scratch:
            _from_scratch(backbone)
            said.append(f"{name}: random weights, nothing frozen")
        elif path in swapped:
            weights = _published(backbone)
            preprocessors = _preprocessors(model, path)
            if weights is not None and preprocessors:
                checkpoint, normalisation = weights
                for preprocessor in preprocessors:
                    preprocessor.pop("rgb_to_bgr", None)
                    preprocessor.update(normalisation)
                for part in [backbone, *_last_stages(at(model, path[:-1]), request)]:
                    _load(part, checkpoint)
                said.append(_published_said(name, backbone, checkpoint, request))
            else:
                said.append(_warm_start(name, backbone))
    if request.scratch:
        _load_nothing(model)
    else:
        said += _whole_checkpoints(model, swapped)
    return said


def _backbones(model: dict[str, Any]) -> Iterator[tuple[Keys, dict[str, Any]]]:
    for path, node in typed(model):
        if path and part_of(path[-1:]) == "backbone":
            yield path, node


def _published(backbone: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    settings = {**_defaults(backbone), **backbone}
    conv = (settings.get("conv_cfg") or {"type": "Conv2d"})["type"]
    if conv not in ("Conv2d", "Conv", "ConvWS") or not is_plain(backbone):
        return None
    if backbone["type"] == "ResNeXt" and (settings.get("groups"), settings.get("base_width")) != (32, 4):
        return None
    return _PUBLISHED.get((backbone["type"], settings.get("depth", 0), conv == "ConvWS"))


def is_plain(backbone: dict[str, Any]) -> bool:
    """Whether a ResNet's layers are those that published weights are of, apart from the kind of its convolutions."""
    settings = {**_defaults(backbone), **backbone}
    return all(settings.get(key, value) == value for key, value in _PLAIN.items())


def _preprocessors(model: dict[str, Any], path: Keys) -> list[dict[str, Any]]:
    """Return what normalises a backbone's images: beside it, and around the model it is in."""
    found = []
    node: Any = model
    for key in path:
        inner = node.get("data_preprocessor") if isinstance(node, dict) else None
        while isinstance(inner, dict):
            if inner.get("mean") is not None:
                found.append(inner)
            inner = inner.get("data_preprocessor")
        beside = bool(found) and isinstance(node, dict) and "data_preprocessor" in node
        node = node[key]
    # A re-identification model's images come from a tracker, which normalises them itself.
    return found if beside else []


def _last_stages(detector: dict[str, Any], request: SwapRequest) -> list[dict[str, Any]]:
    """Return the stages of the backbone that a C4 head has for itself."""
    return [node for path, node in typed(detector) if node["type"] == "ResLayer" and request.wants(path)]


def _load(part: dict[str, Any], checkpoint: str) -> None:
    part["init_cfg"] = {"type": "Pretrained", "checkpoint": checkpoint}
    # Stride on the 3 x 3 convolution; caffe's is on the first.
    if part.get("style", "pytorch") != "pytorch":
        part["style"] = "pytorch"


def _published_said(name: str, backbone: dict[str, Any], checkpoint: str, request: SwapRequest) -> str:
    if request.groups == {"num_groups": DEFAULT_GROUPS}:
        # norm_eval stays too, as in mmdet's configs/gn: it is of no effect on group norm.
        return f"{name}: {checkpoint}, trained with group norm, with its mean and std; frozen_stages as it was"
    _unfreeze(backbone)
    return (
        f"{name}: {checkpoint}, with its mean and std; it was trained with {DEFAULT_GROUPS} groups, so for others it "
        "is a warm start only, and nothing is frozen"
    )


def _warm_start(name: str, backbone: dict[str, Any]) -> str:
    _unfreeze(backbone)
    checkpoint = _checkpoint(backbone)
    if checkpoint is None:
        return f"{name}: starts from random weights as before, nothing is frozen"
    return (
        f"{name}: no group norm weights are published for it. {checkpoint} stays as a warm start of the convolutions, "
        "the norms start at 1 and 0, nothing is frozen. To do better: pretrain it with group norm (init_cfg), or train "
        "from scratch, and long"
    )


def _from_scratch(backbone: dict[str, Any]) -> None:
    _unfreeze(backbone)
    default = _defaults(backbone)
    if {**default, **backbone}.get("zero_init_residual"):
        backbone["zero_init_residual"] = False
    if _checkpoint({"init_cfg": default.get("init_cfg"), **backbone}) is not None:
        backbone["init_cfg"] = None


def _unfreeze(backbone: dict[str, Any]) -> None:
    unfreeze_stages(backbone)
    # Of no effect on group norm; it goes with frozen weights, and would mislead beside none.
    if {**_defaults(backbone), **backbone}.get("norm_eval"):
        backbone["norm_eval"] = False


def unfreeze_stages(backbone: dict[str, Any]) -> None:
    """Have all of a backbone's stages trained, in its config."""
    # By default they are, which some number from -1 (ResNet), some from 0 (EfficientNet).
    nothing = _defaults(backbone).get("frozen_stages", -1)
    if backbone.get("frozen_stages", nothing) != nothing:
        backbone["frozen_stages"] = nothing


def _defaults(backbone: dict[str, Any]) -> dict[str, Any]:
    cls = registered_class(backbone["type"])
    return defaults(cls) if cls else {}


def _checkpoint(node: dict[str, Any]) -> str | None:
    """Return the weights that a part loads, by either of mmdet's ways to say so."""
    init = node.get("init_cfg")
    if isinstance(init, dict) and init.get("type") == "Pretrained":
        return init.get("checkpoint")
    return node.get("pretrained") if isinstance(node.get("pretrained"), str) else None


def _load_nothing(model: dict[str, Any]) -> None:
    for _, node in typed(model):
        if _checkpoint(node) is not None:
            node["init_cfg"] = None
            if node.get("pretrained"):
                node["pretrained"] = None


def _whole_checkpoints(model: dict[str, Any], swapped: set[Keys]) -> list[str]:
    """Tell of weights of whole models that were trained with batch norm."""
    said = []
    for path, node in typed(model):
        if not any(backbone[: len(path)] == path != backbone for backbone in swapped):
            continue
        checkpoint = node.get("teacher_ckpt") or _checkpoint(node)
        if checkpoint:
            said.append(
                f"{'.'.join(map(str, ('model', *path)))}: {checkpoint} was trained with the old norms, so it is a warm "
                "start of the other layers at best"
            )
    return said
