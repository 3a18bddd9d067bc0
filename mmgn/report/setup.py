"""What was trained, told from a dumped config: detector, backbone, norms, schedule."""

import ast
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

#: Epochs by the name of mmdet's schedules.
SCHEDULES = {12: "1x", 24: "2x", 36: "3x", 73: "6x"}
#: The parts of a detector whose norms are told apart, and where a config has them.
PARTS = {
    "backbone": ("backbone",),
    "neck": ("neck",),
    "RPN": ("rpn_head",),
    "box head": ("roi_head", "bbox_head"),
    "mask head": ("roi_head", "mask_head"),
    "head": ("bbox_head",),
}
# What ast raises at text that is no literal, nested too deeply among them.
_REFUSED = (SyntaxError, ValueError, TypeError, RecursionError, MemoryError)


@dataclass(frozen=True)
class Setup:
    """What decides which published row a run can be held against; None is unknown."""

    detector: str | None = None
    #: R-50, R-101, X-101-32x4d; any other as its type and depth.
    backbone: str | None = None
    #: FPN, or C4 where res5 is the head.
    neck: str | None = None
    #: ``Shared4Conv1FC`` is 4conv1fc.
    box_head: str | None = None
    #: Kind of norm by part, for the parts that have one. BN* is frozen as a whole, ``BN (mmdet)`` trains its weight
    #: and bias and keeps its statistics; ``-16g`` and ``-8cpg`` are groups and channels a group other than 32
    #: groups; ``+WS`` stands for weight standardization.
    norms: Mapping[str, str] | None = None
    epochs: int | None = None
    milestones: tuple[int, ...] | None = None
    pretrained: bool | None = None

    @property
    def norm(self) -> str | None:
        """The norms in one phrase: ``FusedGN (all)``, ``BN*``, ``BN*; FusedGN in box head``."""
        if self.norms is None:
            return None
        if not self.norms:
            return "none"
        kinds: dict[str, list[str]] = {}
        for part, kind in self.norms.items():
            kinds.setdefault(kind, []).append(part)
        if len(kinds) == 1:
            (kind,) = kinds
            parts = kinds[kind]
            if "backbone" in parts and ("mask head" in parts or "head" in parts):
                return f"{kind} (all, RPN too)" if "RPN" in parts else f"{kind} (all)"
            return kind if parts == ["backbone"] else f"{kind} ({', '.join(parts)})"
        return "; ".join(
            kind if parts == ["backbone"] else f"{kind} in {', '.join(parts)}" for kind, parts in kinds.items()
        )

    @property
    def schedule(self) -> str | None:
        """The schedule as the field names it: ``2x (24 epochs)``, ``from scratch`` behind it."""
        if self.epochs is None:
            return None
        name = SCHEDULES.get(self.epochs) if self.backbone and self.epochs in SCHEDULES else None
        text = f"{name} ({self.epochs} epochs)" if name else f"{self.epochs} epochs"
        return text if self.pretrained is not False else f"{text}, from scratch"

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, with the two phrases."""
        return asdict(self) | {"norm": self.norm, "schedule": self.schedule}


def read_config(text: str) -> dict[str, Any]:
    """Return the settings of a config as MMEngine dumps it, without running it.

    Only literals and ``dict(...)`` are read, which is all that a dump has; a setting of another form is left out.
    """
    try:
        tree = ast.parse(text)
    except _REFUSED:
        return {}
    settings: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            try:
                settings[node.targets[0].id] = _value(node.value)
            except _REFUSED:
                continue
    return settings


def describe(config: Mapping[str, Any]) -> Setup:
    """Return what the settings tell."""
    model = config.get("model")
    if not isinstance(model, Mapping):
        return Setup()
    backbone = _at(model, ("backbone",))
    epochs = mapping(config.get("train_cfg")).get("max_epochs")
    return Setup(
        detector=_type(model),
        backbone=_backbone(backbone),
        neck="C4" if _at(model, ("roi_head", "shared_head")) else _type(_at(model, ("neck",))),
        box_head=_box_head(_at(model, ("roi_head", "bbox_head"))),
        norms=_norms(model),
        epochs=epochs if type(epochs) is int else None,
        milestones=_milestones(config.get("param_scheduler")),
        pretrained=bool(_loads(backbone.get("init_cfg")) or backbone.get("pretrained") or config.get("load_from")),
    )


def mapping(setting: Any) -> Mapping[str, Any]:
    """Return a setting that ought to be a dict, an empty one in the place of anything else."""
    return setting if isinstance(setting, Mapping) else {}


def string(setting: Any) -> str:
    """Return a setting that ought to be a string, an empty one in the place of anything else."""
    return setting if isinstance(setting, str) else ""


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call):
        if not isinstance(node.func, ast.Name) or node.func.id != "dict" or node.args:
            raise ValueError
        return {keyword.arg: _value(keyword.value) for keyword in node.keywords if keyword.arg}
    if isinstance(node, ast.Dict):
        return {_value(key): _value(value) for key, value in zip(node.keys, node.values, strict=True) if key}
    if isinstance(node, ast.List):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(item) for item in node.elts)
    return ast.literal_eval(node)


def _at(settings: Any, keys: tuple[str, ...]) -> dict[str, Any]:
    for key in keys:
        # Cascade R-CNN has a list of box heads, all of one form.
        settings = settings[0] if isinstance(settings, list) and settings else settings
        settings = settings.get(key) if isinstance(settings, Mapping) else None
    settings = settings[0] if isinstance(settings, (list, tuple)) and settings else settings
    return dict(settings) if isinstance(settings, Mapping) else {}


def _type(settings: Mapping[str, Any]) -> str | None:
    kind = settings.get("type")
    # Configs of Python's own syntax are dumped with the class's module.
    return kind.rpartition(".")[2] if isinstance(kind, str) else None


def _backbone(backbone: Mapping[str, Any]) -> str | None:
    kind, depth = _type(backbone), backbone.get("depth")
    kind = kind.removeprefix("GN") if kind else None
    # A ResNet of other widths is none of those that are published.
    if kind == "ResNet" and backbone.get("base_channels", 64) == 64:
        return f"R-{depth}"
    if kind == "ResNeXt":
        return f"X-{depth}-{backbone.get('groups', 1)}x{backbone.get('base_width', 4)}d"
    return f"{kind}-{depth}" if kind and depth else kind


def _loads(init: Any) -> bool:
    """Whether an ``init_cfg`` loads weights; Kaiming's and others draw them."""
    entries = init if isinstance(init, (list, tuple)) else [init]
    return any(_type(entry) in ("Pretrained", "PretrainedInit") for entry in entries if isinstance(entry, Mapping))


def _box_head(head: Mapping[str, Any]) -> str | None:
    kind = (_type(head) or "").removeprefix("GN")
    if kind.startswith("Shared") and kind.endswith("BBoxHead"):
        return kind.removeprefix("Shared").removesuffix("BBoxHead").lower()
    return _type(head)


def _norms(model: Mapping[str, Any]) -> dict[str, str]:
    norms = {}
    for part, keys in PARTS.items():
        settings = _at(model, keys)
        # mmdet's ResNets have a norm by default.
        default = {"type": "BN"} if part == "backbone" and settings.get("depth") else None
        norm = settings.get("norm_cfg", default)
        if isinstance(norm, Mapping) and _type(norm):
            norms[part] = _norm(norm, settings)
    return norms


def _norm(norm: Mapping[str, Any], owner: Mapping[str, Any]) -> str:
    kind = _type(norm) or ""
    if kind == "BN" and norm.get("requires_grad") is False:
        kind = "BN*"
    elif kind == "BN" and owner.get("depth") and owner.get("norm_eval", True):
        kind = "BN (mmdet)"
    elif norm.get("channels_per_group"):
        kind += f"-{norm['channels_per_group']}cpg"
    elif norm.get("num_groups", 32) != 32:
        kind += f"-{norm['num_groups']}g"
    convolution = owner.get("conv_cfg")
    return f"{kind}+WS" if isinstance(convolution, Mapping) and _type(convolution) == "ConvWS" else kind


def _milestones(schedulers: Any) -> tuple[int, ...] | None:
    for scheduler in schedulers if isinstance(schedulers, (list, tuple)) else [schedulers]:
        milestones = mapping(scheduler).get("milestones")
        if isinstance(milestones, (list, tuple)) and milestones and all(type(step) is int for step in milestones):
            return tuple(milestones)
    return None
