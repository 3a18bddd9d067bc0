"""A cell's config: the base config with the cell's norm, batch size, learning rate and seed."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmgn.engine.model import build_model, takes
from mmgn.engine.norm_swap.diff import config_text, difference
from mmgn.engine.norm_swap.weights import IMAGENET, is_plain, unfreeze_stages
from mmgn.models.norms import norm_layers
from mmgn.study.grid import Cell


def norm_cfg(cell: Cell) -> dict[str, Any]:
    """Return a cell's norm as a config has it."""
    if cell.norm == "BN*":
        # Frozen wherever it stands: norm_eval=True with requires_grad=False is so in a backbone alone.
        return {"type": "mmdet.FrozenBN"}
    if cell.norm in ("BN", "SyncBN"):
        return {"type": cell.norm}
    groups = {"num_groups": cell.num_groups, "channels_per_group": cell.channels_per_group}
    return {"type": "FusedGN", **{key: value for key, value in groups.items() if value}}


def base_groups(cfg: Config) -> dict[str, int]:
    """Return the groups of a base config, as a cell has them.

    Raises:
        ValueError: it has no norm of type FusedGN, or norms of several groups.
    """
    found: list[dict[str, int]] = []
    for holder in _holders(cfg.model):
        norm = holder["norm_cfg"]
        key = "channels_per_group" if norm.get("channels_per_group") else "num_groups"
        groups = {key: norm.get(key, 32)}
        if groups not in found:
            found.append(groups)
    if len(found) != 1:
        what = " and ".join(map(str, found)) or "none"
        raise ValueError(f"{cfg.filename} must have norm_cfg=dict(type='FusedGN') of one kind all over, found {what}")
    return found[0]


def put_norm(cfg: Config, cell: Cell) -> None:
    """Put the cell's norm in the place of every FusedGN of a base config's model."""
    for holder in list(_holders(cfg.model)):
        holder["norm_cfg"] = norm_cfg(cell)
    if cell.norm in ("BN", "SyncBN") and takes(cfg, cfg.model.backbone, "norm_eval"):
        # mmdet's ResNet would norm with running statistics in training.
        cfg.model.backbone.norm_eval = False


def check_norms(base: Config, cell: Cell) -> None:
    """Check that a base config's model with the cell's norm has no other.

    Raises:
        ValueError: it has, or it cannot be built.
    """
    # A detector takes its config apart when it is built, too.
    cfg = copy.deepcopy(base)
    put_norm(cfg, cell)
    kind = {"BN": "BN", "SyncBN": "SyncBN", "BN*": "FrozenBN"}.get(cell.norm, "FusedGN")
    others = [norm for norm in norm_layers(build_model(cfg)) if norm.kind != kind]
    if others:
        raise ValueError(
            f"{base.filename}: {len(others)} norms would not be {cell.norm}, first {others[0].name}, which is "
            f"{others[0].kind}: a study needs norm_cfg=dict(type='FusedGN') wherever its model has a norm"
        )


def pretrained_backbone(cfg: Config) -> str | None:
    """Return torchvision's weights for a config's backbone, None where it has none that fit."""
    backbone = cfg.model.backbone
    fits = backbone.type == "ResNet" and is_plain(backbone)
    return f"torchvision://resnet{backbone.depth}" if fits else None


def start_from(cfg: Config, weights: str | None) -> None:
    """Have a training start from scratch, or from weights.

    Args:
        cfg: changed in place.
        weights: a checkpoint of the whole model; or, with a scheme, of a backbone that torchvision has pretrained,
            which gets its images as it was trained on them, and leaves a frozen norm elsewhere the identity; None for
            random ones.
    """
    cfg.load_from = None
    backbone = cfg.model.backbone
    if "pretrained" in cfg.model:
        cfg.model.pretrained = None
    if (backbone.get("init_cfg") or {}).get("type") == "Pretrained":
        backbone.init_cfg = None
    if weights and "://" in weights:
        backbone.init_cfg = dict(type="Pretrained", checkpoint=weights)
        cfg.model.setdefault("data_preprocessor", {}).update(IMAGENET)
    else:
        cfg.load_from = weights
        # What its pretrained weights had frozen is random now.
        unfreeze_stages(backbone)


def write_config(path: Path, base: Config, cfg: Config) -> None:
    """Write a cell's config as a difference to its base config."""
    old, new = (copy.deepcopy(each.to_dict()) for each in (base, cfg))
    path.parent.mkdir(parents=True, exist_ok=True)
    text = config_text(str(Path(base.filename).resolve()), difference(old, new), {}, {})
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def _holders(node: Any) -> Iterator[Any]:
    """Yield the parts of a model's config that have a norm_cfg of type FusedGN."""
    if isinstance(node, dict):
        norm = node.get("norm_cfg")
        if isinstance(norm, dict) and norm.get("type") == "FusedGN":
            yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, (list, tuple)) else ():
        yield from _holders(child)
