"""ResumableEpochLoop: an epoch-based training that goes on in the middle of an epoch."""

from typing import Any

from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop

from mmgn.engine.seeded_batches import batches_after, seed_batches


@LOOPS.register_module()
class ResumableEpochLoop(EpochBasedTrainLoop):
    """``EpochBasedTrainLoop`` that, resumed within an epoch, trains on the batches that are left of it.

    mmengine's begins the epoch again, with more iterations and a schedule that is over before the last epoch is.
    Left are the batches of the sampler's order, so they are those not seen yet where the seed is the same. Loading
    does not pass through the images before, and augments the others as it would have done then
    (:class:`mmgn.engine.seeded_batches.SeededBatches`). Where epochs have another length than before, with another
    number of processes or another batch size, the same share of the epoch is left; iterations are counted on.

    Example:
        >>> train_cfg = dict(type="ResumableEpochLoop", max_epochs=24, val_interval=1)
    """

    #: Iterations of the epoch to be gone on with that were trained before.
    done_before = 0

    def __init__(self, runner: Any, dataloader: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(runner, dataloader, *args, **kwargs)
        seed_batches(self.dataloader)

    def run(self) -> Any:
        """Train to the last epoch's end."""
        self.done_before = self._count_done()
        self._max_iters = self._iter + (self._max_epochs - self._epoch) * len(self.dataloader) - self.done_before
        return super().run()

    def run_epoch(self) -> None:
        """Train to the end of the epoch."""
        done, self.done_before = self.done_before, 0
        # Checkpoints hold it.
        began = {"epoch": self._epoch, "iter": self._iter - done, "length": len(self.dataloader)}
        self.runner.message_hub.update_info("epoch_began", began)
        if done:
            text = f"epoch {self._epoch + 1} goes on after {done} of {len(self.dataloader)} iterations"
            self.runner.logger.info(text)
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        for idx, batch in enumerate(batches_after(self.dataloader, done, self.runner.seed, self._epoch), done):
            self.run_iter(idx, batch)
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1

    def _count_done(self) -> int:
        info = self.runner.message_hub.runtime_info
        length = info.get("max_iters", 0) // info.get("max_epochs", 1) or len(self.dataloader)
        # A checkpoint of mmengine's loop does not tell when its epoch began.
        began = info.get("epoch_began") or {"epoch": self._epoch, "iter": self._epoch * length, "length": length}
        if not self._iter or began["epoch"] != self._epoch:
            return 0
        done = min(max(self._iter - began["iter"], 0), began["length"])
        if done and began["length"] != len(self.dataloader):
            self.runner.logger.warning(
                f"epochs had {began['length']} iterations and have {len(self.dataloader)} now: epoch {self._epoch + 1} "
                "goes on at the same share of it, with images of which some have been seen"
            )
        return round(done / began["length"] * len(self.dataloader))


def epochs_done(runner: Any) -> float:
    """Return how many epochs a runner has trained, of a training by iterations too."""
    if isinstance(runner.train_loop, EpochBasedTrainLoop):
        left: float = (runner.max_iters - runner.iter) / len(runner.train_dataloader)
        return runner.max_epochs - left
    return runner.iter / len(runner.train_dataloader)
