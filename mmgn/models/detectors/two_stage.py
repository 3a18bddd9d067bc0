"""GNMaskRCNN, GNFasterRCNN and GNCascadeRCNN: one norm for all parts of a detector."""

import copy
import inspect
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

from mmdet.models.detectors import CascadeRCNN, FasterRCNN, MaskRCNN
from mmdet.registry import MODELS
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmgn.models.gn_by_default import GNByDefault

# Norms that group normalisation stands for. Layer norm over a transformer's tokens is none of them.
_BATCH_NORMS = ("BN", "BN1d", "BN2d", "SyncBN", "MMSyncBN")
_REPLACED = (*_BATCH_NORMS, "GN", "FusedGN")


class NormInAllParts(nn.Module):
    """First base of a two-stage detector that takes ``norm_cfg`` and passes it on.

    It goes to the backbone, the neck, the shared head, the box heads and the mask heads, wherever their class takes a
    ``norm_cfg`` that is batch norm, group norm or none by default, and their config names none. The RPN has no norm,
    as in "Group Normalization" (Wu & He, ECCV 2018). The configs given are left as they were. A part whose config names
    a batch norm keeps it, with a warning unless it is frozen (``requires_grad=False``, the paper's BN*).

    Args:
        *args: the detector's.
        norm_cfg: the norm; None leaves the parts as they are.
        **kwargs: the detector's.
    """

    def __init__(self, *args: Any, norm_cfg: dict[str, Any] | None = None, **kwargs: Any) -> None:
        given = inspect.signature(super().__init__).bind(*args, **kwargs)
        parts = {name: copy.deepcopy(given.arguments.get(name)) for name in ("backbone", "neck", "roi_head")}
        given.arguments.update(parts)
        if norm_cfg is not None:
            roi_head = parts["roi_head"] or {}
            heads = {f"roi_head.{name}": roi_head.get(name) for name in ("shared_head", "bbox_head", "mask_head")}
            places = {"backbone": parts["backbone"], "neck": parts["neck"], **heads}
            for part in places.values():
                _pass_on(norm_cfg, part)
            self._warn_of_batch_norm(norm_cfg, places)
        super().__init__(*given.args, **given.kwargs)

    def _warn_of_batch_norm(self, norm_cfg: dict[str, Any], places: Mapping[str, Any]) -> None:
        kept = [name for name, part in places.items() if any(map(_trains_batch_norm, _norms_named(part)))]
        if not kept or _is_batch_norm(norm_cfg):
            return
        arguments = ", ".join(f"{key}={value!r}" for key, value in norm_cfg.items())
        warnings.warn(
            f"{type(self).__name__}: the config of {' and '.join(kept)} names a batch norm of its own, which stays; "
            f"norm_cfg={dict(norm_cfg)} is for the other parts. To replace it, set there "
            f"norm_cfg=dict(_delete_=True, {arguments}); if the paper's BN* is meant, requires_grad=False.",
            stacklevel=2,
        )


def _pass_on(norm_cfg: dict[str, Any], part: Any) -> None:
    """Set ``norm_cfg`` in a part's config, or in each of a list's."""
    if isinstance(part, (list, tuple)):
        for each in part:
            _pass_on(norm_cfg, each)
    elif isinstance(part, dict) and "norm_cfg" not in part and _takes_norm(part):
        part["norm_cfg"] = copy.deepcopy(norm_cfg)


def _norms_named(part: Any) -> Iterator[dict[str, Any]]:
    """Yield the ``norm_cfg`` of a part's config, or of each of a list's."""
    if isinstance(part, (list, tuple)):
        for each in part:
            yield from _norms_named(each)
    elif isinstance(part, dict) and part.get("norm_cfg"):
        yield part["norm_cfg"]


def _is_batch_norm(norm_cfg: dict[str, Any]) -> bool:
    kind = norm_cfg.get("type")
    # A registry's name may have its scope before it.
    return issubclass(kind, _BatchNorm) if inspect.isclass(kind) else str(kind).rpartition(".")[2] in _BATCH_NORMS


def _trains_batch_norm(norm_cfg: dict[str, Any]) -> bool:
    return _is_batch_norm(norm_cfg) and norm_cfg.get("requires_grad", True)


def _takes_norm(part: dict[str, Any]) -> bool:
    kind = part.get("type")
    with MODELS.switch_scope_and_registry(part.get("_scope_")) as registry:
        cls = registry.get(kind) if isinstance(kind, str) else kind
    # What cannot be found is for the registry to tell.
    if not inspect.isclass(cls):
        return False
    for init in (vars(base).get("__init__") for base in cls.__mro__):
        if init is None:
            continue
        parameters = inspect.signature(init).parameters
        if "norm_cfg" in parameters:
            default = parameters["norm_cfg"].default
            return not isinstance(default, dict) or default.get("type") in _REPLACED
        # Only by **kwargs does what it does not name reach the next base.
        if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
            return False
    return False


@MODELS.register_module()
class GNMaskRCNN(GNByDefault, NormInAllParts, MaskRCNN):
    """mmdet's MaskRCNN with ``norm_cfg``, FusedGN by default, for all parts but the RPN.

    A part whose config names a norm keeps it, as the backbone of mmdet's ``_base_/models`` does its BN, with a warning:
    an inheriting config gives it ``norm_cfg=dict(_delete_=True, type='FusedGN', num_groups=32)``.
    """


@MODELS.register_module()
class GNFasterRCNN(GNByDefault, NormInAllParts, FasterRCNN):
    """mmdet's FasterRCNN with ``norm_cfg``, FusedGN by default, for all parts but the RPN; see GNMaskRCNN."""


@MODELS.register_module()
class GNCascadeRCNN(GNByDefault, NormInAllParts, CascadeRCNN):
    """mmdet's CascadeRCNN with ``norm_cfg``, FusedGN by default, for all parts but the RPN; see GNMaskRCNN."""
