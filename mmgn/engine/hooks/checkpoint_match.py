"""CheckpointMatchHook: a test of weights that are not the model's is an error, where mmengine warns."""

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.registry import HOOKS
from torch import nn

from mmgn.compat.checkpoint import CheckpointError


@HOOKS.register_module()
class CheckpointMatchHook(Hook):
    """Calls :func:`check_match` on what a runner loads.

    Args:
        allow_missing: Whether parameters of the model may be missing in the checkpoint.
    """

    # After EMAHook, which puts the averaged weights in the place of the others.
    priority = "LOWEST"

    def __init__(self, allow_missing: bool = False) -> None:
        self.allow_missing = allow_missing

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Check before the weights are loaded."""
        check_match(runner.model, checkpoint, runner._load_from, allow_missing=self.allow_missing)


def check_match(model: nn.Module, checkpoint: Mapping[str, Any], name: str, *, allow_missing: bool = False) -> None:
    """Load a checkpoint's weights into the model, all of whose parameters must be in it.

    A checkpoint may hold more than the model, and batch norm's statistics may be missing: mmengine warns of either.

    Args:
        model: in its wrapper, if it has one.
        checkpoint: as mmengine saves it, or its ``state_dict`` alone.
        name: the checkpoint's, for the error.
        allow_missing: let parameters be missing as long as there is one.

    Raises:
        CheckpointError: parameters are missing or of another shape; with counts and examples.
    """
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module  # type: ignore[assignment]
    source = checkpoint.get("state_dict", checkpoint)
    state = {re.sub(r"^module\.", "", key): value for key, value in source.items()}
    own = model.state_dict()
    misshapen = [key for key, value in state.items() if key in own and own[key].shape != _shape(value)]
    # torch's own loading, because a module may know its weights by older names, of the version that metadata tells.
    kept = OrderedDict((key, value) for key, value in state.items() if key not in misshapen)
    if hasattr(source, "_metadata"):
        kept._metadata = source._metadata  # type: ignore[attr-defined]
    absent, unexpected = model.load_state_dict(kept, strict=False)
    parameters = {key for key, _ in model.named_parameters()}
    missing = [key for key in absent if key in parameters and key not in misshapen]
    lost = len(missing) + len(parameters.intersection(misshapen))
    if not lost or (allow_missing and not misshapen and lost < len(parameters)):
        return
    facts = [f"{len(missing)} missing{_examples(missing)}"] if missing else []
    if misshapen:
        first = misshapen[0]
        shapes = f"{first}: {list(_shape(state[first]))}, the model's is {list(own[first].shape)}"
        facts.append(f"{len(misshapen)} of another shape (such as {shapes})")
    if unexpected:
        facts.append(f"keys that the model does not have: {len(unexpected)}{_examples(unexpected)}")
    raise CheckpointError(
        f"{name} is not a checkpoint of this model, {type(model).__name__}: of its {len(parameters)} parameters "
        f"{len(parameters) - lost} match; {', '.join(facts)}. Give the config that it was trained with"
        + ("." if misshapen or allow_missing else ", or --allow-missing to leave those at their random values.")
    )


def _shape(value: Any) -> torch.Size:
    return getattr(value, "shape", torch.Size())


def _examples(keys: list[str]) -> str:
    return f" (such as {', '.join(keys[:2])})"
