"""The known traps of norms in detection: what a config says and training does not do, or does beside it.

Numbers: Group Normalization (Wu & He, ECCV 2018) and Detectron's released models.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from mmgn.engine.norm_state import NormRow
from mmgn.models.listing import first

# Images per GPU; the paper has 2 and 4 in its table 2.
_SMALL_BATCH = 4


@dataclass(frozen=True)
class _Case:
    model: nn.Module
    rows: tuple[NormRow, ...]
    #: Empty without a config.
    cfg: Any

    def norms(self, *kinds: str, **states: Any) -> list[NormRow]:
        """Return the norms of those kinds whose attributes have those values."""
        return [r for r in self.rows if r.kind in kinds and all(getattr(r, k) == v for k, v in states.items())]


def traps(model: nn.Module, rows: tuple[NormRow, ...], cfg: Any = None) -> list[str]:
    """Return a warning for each trap that a model is in: what, where, and the way out."""
    case = _Case(model, rows, cfg or {})
    return [warning for trap in _TRAPS for warning in trap(case)]


def _half_frozen(case: _Case) -> Iterator[str]:
    for kind in ("BN", "SyncBN"):
        rows = case.norms(kind, trains=True, updates_statistics=False)
        if rows:
            yield (
                f"{_some(rows)}: the running statistics are kept (norm_eval=True) but weight and bias train, which is "
                "mmdet's default and not the paper's BN*, where all of a BN is frozen. For BN*: "
                "norm_cfg=dict(type='BN', requires_grad=False) and norm_eval=True."
            )


def _sync_without_statistics(case: _Case) -> Iterator[str]:
    rows = case.norms("SyncBN", updates_statistics=False)
    # A frozen stage is meant not to.
    if rows and not case.norms("SyncBN", updates_statistics=True):
        yield (
            f"{_some(rows)}: with kept statistics (norm_eval=True) SyncBN synchronises nothing. norm_eval=False lets "
            "it work; to keep the statistics, type='BN' does the same."
        )


def _moving_statistics(case: _Case) -> Iterator[str]:
    rows = case.norms("BN", "SyncBN", trains=False, updates_statistics=True)
    rows = [row for row in rows if any(True for _ in case.model.get_submodule(row.name).parameters(recurse=False))]
    if rows:
        yield (
            f"{_some(rows)}: weight and bias are frozen, but the running statistics move with every batch. "
            "norm_eval=True in the backbone keeps them, type='FrozenBN' does anywhere."
        )


def _small_batch(case: _Case) -> Iterator[str]:
    batch = (case.cfg.get("train_dataloader") or {}).get("batch_size")
    rows = case.norms("BN", updates_statistics=True)
    if rows and isinstance(batch, int) and batch <= _SMALL_BATCH:
        yield (
            f"{_some(rows)}: statistics of {batch} images per GPU (train_dataloader.batch_size). BN's ImageNet error "
            "goes from 23.6% at 32 images to 27.3% at 4 and 34.7% at 2, GN's stays within 24.0 and 24.2% (Group "
            "Normalization, table 2). norm_cfg=dict(type='FusedGN'), SyncBN over enough GPUs, or kept statistics "
            "(norm_eval=True) avoid it."
        )


def _decayed(case: _Case) -> Iterator[str]:
    rows = case.norms("GN", "FusedGN", "BN", "SyncBN", decays=True)
    # On ImageNet the paper decays them like all else.
    if not rows or case.cfg.get("default_scope") == "mmpretrain":
        return
    wrapper = case.cfg["optim_wrapper"]
    paramwise = wrapper.get("paramwise_cfg") or {}
    decay = wrapper["optimizer"].get("weight_decay", "the default")
    keys = [key for key in paramwise.get("custom_keys") or {} if any(key in f"{row.name}.weight" for row in rows)]
    warning = (
        f"{_some(rows)}: weight and bias are decayed (weight_decay={decay}), which Group Normalization leaves out "
        "and calls important: "
    )
    if paramwise.get("norm_decay_mult") == 0 and keys:
        yield (
            f"{warning}norm_decay_mult=0 is out of force where one of custom_keys matches, here "
            f"{', '.join(map(repr, keys))}. Give the norms longer keys of their own, with decay_mult=0."
        )
    else:
        yield f"{warning}optim_wrapper=dict(paramwise_cfg=dict(norm_decay_mult=0.))."


def _frozen_from_scratch(case: _Case) -> Iterator[str]:
    if not case.cfg or case.cfg.get("load_from"):
        return
    for name, module in case.model.named_modules():
        stages = getattr(module, "frozen_stages", None)
        if isinstance(stages, int) and stages >= 0 and not _checkpoint(case.model, name):
            if all(p.requires_grad for p in module.parameters()):
                continue
            yield (
                f"{name or 'model'}: frozen_stages={stages} without pretrained weights keeps random ones: a frozen "
                "res2 from scratch cost Detectron 3 AP, 36.2 against 39.5. frozen_stages=-1, or weights: "
                "init_cfg=dict(type='Pretrained', checkpoint=...) or load_from."
            )


def _identity(case: _Case) -> Iterator[str]:
    if not case.cfg or case.cfg.get("load_from"):
        return
    rows = case.norms("BN", "SyncBN", "FrozenBN", trains=False, updates_statistics=False)
    rows = [row for row in rows if not _checkpoint(case.model, row.name)]
    if rows:
        yield (
            f"{_some(rows)}: frozen without pretrained weights, so the identity: it normalises nothing. Give weights: "
            "init_cfg=dict(type='Pretrained', checkpoint=...) or load_from."
        )


def _weights_of_batch_norm(case: _Case) -> Iterator[str]:
    for name, module in case.model.named_modules():
        checkpoint = _own_checkpoint(module)
        if not checkpoint or "gn" in checkpoint.lower() or "group" in checkpoint.lower():
            continue
        below = [row for row in case.rows if not name or row.name.startswith(f"{name}.")]
        rows = [row for row in below if row.kind in ("GN", "FusedGN")]
        if rows and len(rows) == len(below):
            yield (
                f"{_some(rows)}: init_cfg loads {checkpoint!r}, whose name does not tell of GN. A checkpoint with BN "
                "has other keys (bn1, not gn1) and convolutions that fit its statistics. Trained with GN are "
                "open-mmlab://detectron/resnet50_gn and resnet101_gn (BGR, std 1), open-mmlab://contrib/resnet50_gn."
            )


def _one_channel(case: _Case) -> Iterator[str]:
    rows = [row for row in case.rows if row.num_groups == row.num_channels]
    if rows:
        yield (
            f"{_some(rows)}: one channel a group, which is instance norm (ImageNet error 28.4%, 24.1% with 32 groups) "
            "and on a 1x1 map the bias alone. Fewer groups leave more: num_groups=... or channels_per_group=...."
        )


_TRAPS: tuple[Callable[[_Case], Iterable[str]], ...] = (
    _half_frozen,
    _sync_without_statistics,
    _moving_statistics,
    _small_batch,
    _decayed,
    _frozen_from_scratch,
    _identity,
    _weights_of_batch_norm,
    _one_channel,
)


def _checkpoint(model: nn.Module, name: str) -> str:
    """Return the pretrained weights that a module or one that it is in starts from; '' without."""
    names = name.split(".") if name else []
    modules = (model.get_submodule(".".join(names[:i])) for i in range(len(names), -1, -1))
    return next(filter(None, map(_own_checkpoint, modules)), "")


def _own_checkpoint(module: nn.Module) -> str:
    # Of mmengine's BaseModule: a dict or several.
    init = getattr(module, "init_cfg", None)
    for cfg in init if isinstance(init, (list, tuple)) else [init]:
        if isinstance(cfg, dict) and "Pretrained" in str(cfg.get("type")):
            return str(cfg.get("checkpoint") or "")
    return ""


def _some(rows: list[NormRow]) -> str:
    """Return how many norms of which kind, and the first one's name."""
    kinds = "/".join(dict.fromkeys(row.kind for row in rows))
    return f"{len(rows)} {kinds} ({first([row.name for row in rows])})"
