"""A training that was ended in its last validation makes it up when it is resumed."""

from typing import Any

import torch
from mmengine.dist import broadcast
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop

from mmgn.engine.hooks.run_record import evaluated_iter


class LastValidationHook(Hook):
    """Validates where a resumed training has nothing left to train and no record of its last weights' validation.

    The last checkpoint is saved before the last validation, and a loop that is resumed from it ends at once. Used by
    :func:`mmgn.engine.training.train`.
    """

    # The other hooks have begun.
    priority = "LOWEST"

    def before_train(self, runner: Any) -> None:
        """Validate, if it comes to that."""
        loop = runner.train_loop
        by_epoch = isinstance(loop, EpochBasedTrainLoop)
        done, last = (loop.epoch, loop.max_epochs) if by_epoch else (loop.iter, loop.max_iters)
        if runner.val_loop is None or done < max(last, loop.val_begin):
            return
        # Rank 0 writes the record, and others may not see it.
        missing = torch.tensor(int(evaluated_iter(runner) != runner.iter))
        broadcast(missing)
        if missing:
            runner.logger.info(f"all {runner.iter} iterations are trained, and not validated yet")
            runner.val_loop.run()
