"""FiniteLossHook: a loss of inf or NaN stops a training before it ruins the weights, and tells where it comes from."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from mmengine.dist import all_gather_object, all_reduce, get_world_size
from mmengine.hooks import Hook
from mmengine.optim import AmpOptimWrapper
from mmengine.registry import HOOKS
from torch import Tensor, nn

from mmgn.engine import nonfinite, random_states
from mmgn.engine.model import unwrapped
from mmgn.engine.nonfinite import NonFiniteError
from mmgn.models.norms import norm_layers

_LOWER = (
    "Try --cfg-options optim_wrapper.clip_grad.max_norm=35, a longer warm-up or a lower optim_wrapper.optimizer.lr "
    "(--resume keeps a checkpoint's rate; load_from=CHECKPOINT in its place begins with a new one)."
)
_STATISTICS = "norms' running statistics"
_WIDER = "One forward that overflows ruins them for good: with --amp, try --amp-dtype bf16, which has float32's range."


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Raises ``NonFiniteError`` at the first loss of inf or NaN, before its backward pass.

    It tells the iteration, the term of the loss, the batch's images, and what comes first of: parameters that are not
    finite, as an earlier update has left them; images that are not; the first module whose output is not, found by
    running the forward again from the same random state. No checkpoint is saved of parameters, or of running
    statistics of norms, that are not finite.

    float16's loss scaler leaves out an update whose gradients overflow, one of such a loss too, and lowers its
    scale; 16 of them lower the first one, 2**16, to 1. That is no stop but a warning, until ``max_skipped`` updates
    in a row are left out, or the forward has ruined a BatchNorm's running statistics, which no scaler puts back.

    Costs in each iteration the loss's sum once more, a wait for the GPU between forward and backward, and with
    several ranks one integer reduced: all stop together. ``tools/train.py`` adds the hook to a config that has none.

    Args:
        max_skipped: updates in a row that a loss scaler may leave out.
        enabled: False does nothing: for losses that may be inf, or where the wait costs too much.

    Example:
        >>> custom_hooks = [dict(type="FiniteLossHook", max_skipped=100)]
    """

    # After EMAHook has put into a checkpoint what it averages.
    priority = "LOWEST"

    def __init__(self, max_skipped: int = 30, enabled: bool = True) -> None:
        if max_skipped < 1:
            raise ValueError(f"max_skipped must be at least 1, got {max_skipped}")
        self.max_skipped, self.enabled = max_skipped, enabled
        self._skipped = 0
        self._training = self._updated = self._scales = False
        self._before: dict[str, Any] = {}

    def before_train(self, runner: Any) -> None:
        """Look at every forward of the model from now on, and at every update."""
        if not self.enabled:
            return
        self._runner = runner
        model, wrapper = unwrapped(runner.model), runner.optim_wrapper
        model.register_forward_pre_hook(_Uncopied(self._note_states))
        model.register_forward_hook(_Uncopied(self._check), with_kwargs=True)
        self._scales = isinstance(wrapper, AmpOptimWrapper) and wrapper.loss_scaler.is_enabled()
        if self._scales:
            wrapper.optimizer.register_step_post_hook(self._note_update)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Begin to look: a validation may compute losses too."""
        self._training, self._updated = True, False

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Count the updates in a row that a loss scaler has left out."""
        self._training = False
        if not self._scales or not runner.optim_wrapper.should_update():
            return
        self._skipped = 0 if self._updated else self._skipped + 1
        scale = f"the loss scale is {runner.optim_wrapper.loss_scaler.get_scale():.3g}" if self._skipped else ""
        if self._skipped >= self.max_skipped:
            raise NonFiniteError(
                f"the gradients of the last {self._skipped} iterations with an update were not finite, and {scale} "
                f"now. Try --amp-dtype bf16, which needs no scale. {_LOWER}"
            )
        # Each of the first ones of a training is usual.
        if self._skipped and self._skipped % 10 == 0:
            runner.logger.warning(f"{self._skipped} updates in a row left out, as gradients were inf or NaN; {scale}")

    def before_save_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Refuse parameters and statistics that are not finite: the checkpoint before is worth more."""
        if not self.enabled:
            return
        model, saved = unwrapped(runner.model), checkpoint["state_dict"]
        for what, own, way_out in (
            ("parameters", model.named_parameters(), _LOWER),
            (_STATISTICS, _statistics(model), _WIDER),
        ):
            bad = nonfinite.bad_names((name, saved[name]) for name, _ in own if name in saved)
            if bad:
                raise NonFiniteError(f"{_not_finite(what, bad)}, so no checkpoint is saved. {way_out}")

    def _note_states(self, model: Any, args: Any) -> None:
        if self._training:
            self._before = random_states.get()

    def _note_update(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        # A fused one is called for an update that it leaves out itself.
        found = getattr(optimizer, "found_inf", None)
        self._updated = found is None or not bool(found)

    def _check(self, model: Any, args: Any, kwargs: Any, losses: Any) -> None:
        mode = kwargs.get("mode", args[2] if len(args) > 2 else None)
        if not self._training or mode != "loss" or not isinstance(losses, Mapping):
            return
        with torch.no_grad():
            loss, terms = model.parse_losses(losses)
        finite = bool(torch.as_tensor(loss).isfinite().all())
        if not _any_rank(not finite):
            return
        runner = self._runner
        term = "" if finite else _first_bad_term(terms)
        ruined = nonfinite.bad_names(_statistics(model)) if self._scales else []
        if self._scales and not _any_rank(bool(ruined)) and self._skipped + 1 < self.max_skipped:
            if term:
                text = f"the loss of iteration {runner.iter + 1} is not finite: {term}; the loss scaler leaves it out"
                runner.logger.warning(text)
            return
        # All ranks, as a forward may wait for the others.
        text = self._tell(model, args, kwargs, term, ruined)
        raise NonFiniteError(_first_text(None if finite else text))

    def _tell(self, model: Any, args: Any, kwargs: Any, term: str, ruined: list[str]) -> str:
        bad = nonfinite.bad_names(model.named_parameters())
        random_states.put(self._before)
        try:
            module = nonfinite.first_module(model, lambda: model.forward(*args, **kwargs))
        # Where memory is short; the rest is worth telling.
        except Exception as error:
            module = f"not known, as running it again fails: {str(error).splitlines()[0]}"
        inputs, samples = _inputs_and_samples(args, kwargs)
        if bad:
            what = _not_finite("parameters", bad)
            cause = f"{what}, by the gradients of an update before: its loss was finite, they were not"
            way_out = _LOWER
        elif not nonfinite.is_finite(inputs):
            cause = "The images themselves hold inf or NaN"
            way_out = "Look at these files, and at the mean, std and transforms of the config."
        else:
            cause = f"The first module whose output is not finite is {module}"
            if module is None:
                cause = "All modules' outputs are finite, so a step between them, or the sum, is not"
            way_out = f"Look at the annotations with tools/check_dataset.py. {_LOWER}"
            if torch.is_autocast_enabled(next(model.parameters()).device.type):
                way_out = f"Try --amp-dtype bf16, or no --amp. {way_out}"
        if ruined:
            cause = f"{cause}. {_not_finite(_STATISTICS, ruined)} now, which no loss scaler puts back"
        names = nonfinite.images(samples)
        batch = f" Images of the batch: {', '.join(names)}." if names else ""
        rank = f" on rank {self._runner.rank}" if get_world_size() > 1 else ""
        return (
            f"the loss of iteration {self._runner.iter + 1} is not finite{rank}: {term}{self._history()}. "
            f"{cause}.{batch} The weights have not been updated by it. {way_out}"
        )

    def _history(self) -> str:
        scalars = self._runner.message_hub.log_scalars.get("train/loss")
        before = [] if scalars is None else scalars.data[0][-3:]
        return f" (before: {', '.join(f'{value:.3g}' for value in before)})" if len(before) else ""


class _Uncopied:
    """A hook of one module alone: its copies, deep or pickled, come without, and no compiler traces it."""

    def __init__(self, hook: Callable[..., None]) -> None:
        self._hook = torch.compiler.disable(hook)

    def __call__(self, *args: Any) -> None:
        self._hook(*args)

    def __reduce__(self) -> tuple[Any, ...]:
        return _Uncopied, (_do_nothing,)


def _do_nothing(*args: Any) -> None:
    pass


def _statistics(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Return the norms' buffers by name; other modules' may hold -inf, as masks do."""
    return [
        (f"{norm.name}.{name}", buffer)
        for norm in norm_layers(model)
        for name, buffer in norm.module.named_buffers(recurse=False)
    ]


def _first_bad_term(terms: Mapping[str, Tensor]) -> str:
    """Return the first term of a loss that is not finite, and its value."""
    # The sum comes first.
    names = [name for name in [*list(terms)[1:], "loss"] if "loss" in name]
    name = next(name for name in names if not bool(torch.as_tensor(terms[name]).isfinite().all()))
    return f"{name} is {float(terms[name])}"


def _not_finite(what: str, names: list[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"The {what} are not finite ({names[0]}{more})"


def _inputs_and_samples(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return a model's images and data samples, which it is given by place or by name."""
    given = dict(zip(("inputs", "data_samples"), args, strict=False)) | dict(kwargs)
    return given.get("inputs"), given.get("data_samples")


def _any_rank(flag: bool) -> bool:
    if get_world_size() == 1:
        return flag
    agreed = torch.tensor(int(flag))
    all_reduce(agreed, "max")
    return bool(agreed)


def _first_text(text: str | None) -> str:
    """Return the text of the first rank that has one, on all ranks."""
    texts: list[str | None] = all_gather_object(text)
    return next(filter(None, texts))
