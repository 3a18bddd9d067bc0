"""What a swapped config needs beside its model: no decay on norms, the fusing hook, mmgn imported."""

from collections.abc import Iterable
from typing import Any

from mmgn.engine.norm_swap.decay import no_decay
from mmgn.engine.norm_swap.request import SwapRequest
from mmgn.models.converted import NORM_CONVERTED

# What is added to, and of what type mmengine takes it.
_TYPES: dict[str, tuple[type, ...]] = {
    "optim_wrapper.optimizer": (dict,),
    "optim_wrapper.paramwise_cfg": (dict,),
    "optim_wrapper.paramwise_cfg.custom_keys": (dict,),
    "custom_imports": (dict,),
    "custom_hooks": (list, tuple),
}


def train_settings(
    cfg: dict[str, Any], request: SwapRequest, norms: Iterable[str], parameters: Iterable[str]
) -> list[str]:
    """Make the settings of training and of the runtime fit the new norms, in the config; return what there is to say.

    Args:
        cfg: the config; its model stays as it is.
        request: what was asked for.
        norms: names of the model's new norms.
        parameters: names of all its parameters.

    Raises:
        ValueError: a setting that would be added to is of a type that mmengine does not take.
    """
    _check_types(cfg)
    said = no_decay(cfg, norms, parameters)
    if request.scratch:
        if cfg.get("load_from"):
            cfg["load_from"] = None
        said.append(
            "schedule: left as it is; from scratch the paper trains Mask R-CNN for 270k iterations of 16 images, mmdet "
            "for 73 epochs (train_cfg, param_scheduler)"
        )
    elif cfg.get("load_from"):
        said.append(
            f"load_from: {cfg['load_from']} was trained with the old norms, so it is a warm start of the other layers "
            "at best; --cfg-options load_from=None leaves it out"
        )
    fused = request.to == "FusedGN"
    if fused or cfg["model"]["type"] == NORM_CONVERTED:
        imports = dict(cfg.get("custom_imports") or {"imports": [], "allow_failed_imports": False})
        # mmengine takes one name as well as a list.
        names = [imports["imports"]] if isinstance(imports["imports"], str) else imports["imports"]
        if "mmgn" not in names:
            # First: it serves mmcv's ops to whatever imports mmdet.
            cfg["custom_imports"] = {**imports, "imports": ["mmgn", *names]}
    hooks = cfg.get("custom_hooks") or []
    if fused and not any(str(hook.get("type")).endswith("FuseGNHook") for hook in hooks):
        cfg["custom_hooks"] = [*hooks, {"type": "FuseGNHook"}]
    return said


def _check_types(cfg: dict[str, Any]) -> None:
    for name, kinds in _TYPES.items():
        value: Any = cfg
        for key in name.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if value is None:
            continue
        if not isinstance(value, kinds):
            raise ValueError(f"{name} must be a {' or '.join(kind.__name__ for kind in kinds)}, got {value!r:.80}.")
        entries: Any = value.values() if isinstance(value, dict) else value
        if not name.endswith(("custom_keys", "custom_hooks")):
            entries = ()
        wrong = [entry for entry in entries if not isinstance(entry, dict)]
        if wrong:
            raise ValueError(f"{name} must have dicts in it, got {wrong[0]!r:.80}.")
