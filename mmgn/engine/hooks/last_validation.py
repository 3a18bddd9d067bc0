"""A validation that a training was ended in, or has lost what it gave of, is made up when it is resumed."""

from typing import Any

import torch
from mmengine.dist import broadcast
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop

from mmgn.engine.hooks.checkpoints import VALIDATED
from mmgn.engine.hooks.run_record import evaluated_iter


class LastValidationHook(Hook):
    """Validates where a resumed training goes on from a checkpoint that was saved before its own validation.

    A checkpoint is saved before its weights are validated, and mmengine's loops go on after the validation: there would
    be none of these weights, no best checkpoint of them, and no step of a schedule that goes by the metric. Where
    nothing is left to train, a record of it is enough. Used by :func:`mmgn.engine.training.train`.
    """

    # The other hooks have begun.
    priority = "LOWEST"

    def before_train(self, runner: Any) -> None:
        """Validate, if it comes to that."""
        loop = runner.train_loop
        if runner.val_loop is None or not runner.iter or not _is_due(loop):
            return
        if runner.message_hub.runtime_info.get(VALIDATED) == runner.iter:
            return
        by_epoch = isinstance(loop, EpochBasedTrainLoop)
        over = loop.epoch >= loop.max_epochs if by_epoch else loop.iter >= loop.max_iters
        # Rank 0 writes the record, and others may not see it.
        missing = torch.tensor(int(not over or evaluated_iter(runner) != runner.iter))
        broadcast(missing)
        if missing:
            runner.logger.info(f"{runner.iter} of {loop.max_iters} iterations are trained, and not validated yet")
            runner.val_loop.run()


def _is_due(loop: Any) -> bool:
    """Whether a loop would validate where it is."""
    # Others may not tell when they validate.
    if not isinstance(loop, (EpochBasedTrainLoop, IterBasedTrainLoop)):
        return False
    loop._decide_current_val_interval()
    done, last = loop.iter, loop.max_iters
    if isinstance(loop, EpochBasedTrainLoop):
        within = getattr(loop, "done_before", loop.iter - loop.epoch * len(loop.dataloader))
        if within:
            return False
        done, last = loop.epoch, loop.max_epochs
    return bool(done >= loop.val_begin and (done % loop.val_interval == 0 or done >= last))
