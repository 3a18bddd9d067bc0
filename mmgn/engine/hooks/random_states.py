"""RandomStatesHook: a resumed training draws the random numbers that it would have drawn."""

from typing import Any

from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from mmgn.engine import random_states


@HOOKS.register_module()
class RandomStatesHook(Hook):
    """Puts back the generators' states that a checkpoint has of this rank, where training is resumed from it.

    :class:`SafeCheckpointHook` and the checkpoint of an interruption keep them, mmengine's own does not. A validation
    leaves the generators as it finds them, so that one that is made up, or left out, changes no training.

    Example:
        >>> custom_hooks = [dict(type="RandomStatesHook")]
    """

    # What the other hooks draw comes after.
    priority = "HIGHEST"

    def __init__(self) -> None:
        self._resumed: list[dict[str, Any]] | None = None
        self._before_val: dict[str, Any] | None = None

    def after_load_checkpoint(self, runner: Any, checkpoint: dict) -> None:
        """Note the states."""
        if runner._resume:
            self._resumed = checkpoint["meta"].get(random_states.KEY, [])

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Put them back before the first iteration, after all that a start draws."""
        states, self._resumed = self._resumed, None
        if states is None:
            return
        if len(states) == get_world_size():
            random_states.put(states[get_rank()])
            return
        has = f"those of {len(states)}" if states else "none"
        runner.logger.warning(
            f"the checkpoint has no random states for {get_world_size()} processes, it has {has}: training goes on "
            "with other random numbers than it would have drawn"
        )

    def before_val(self, runner: Any) -> None:
        """Keep the states."""
        self._before_val = random_states.get()

    def after_val_epoch(self, runner: Any, metrics: Any = None) -> None:
        """Put them back before the best checkpoint is saved."""
        self.after_val(runner)

    def after_val(self, runner: Any) -> None:
        """Put them back after what the other hooks have drawn."""
        if self._before_val is not None:
            random_states.put(self._before_val)
