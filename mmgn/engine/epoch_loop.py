"""ResumableEpochLoop: an epoch-based training that goes on in the middle of an epoch."""

from collections.abc import Iterator
from typing import Any

from mmengine.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop
from torch.utils.data import DataLoader


@LOOPS.register_module()
class ResumableEpochLoop(EpochBasedTrainLoop):
    """``EpochBasedTrainLoop`` that, resumed within an epoch, trains on the batches that are left of it.

    mmengine's begins the epoch again, with more iterations and a schedule that is over before the last epoch is.
    Left are the batches of the sampler's order, so they are those not seen yet where the seed is the same. Loading
    does not pass through the images before. Where epochs have another length than before, with another number of
    processes or another batch size, the same share of the epoch is left; iterations are counted on.

    Example:
        >>> train_cfg = dict(type="ResumableEpochLoop", max_epochs=24, val_interval=1)
    """

    # Iterations of the epoch to be gone on with that were trained before.
    _done = 0

    def run(self) -> Any:
        """Train to the last epoch's end."""
        self._done = self._done_before()
        self._max_iters = self._iter + (self._max_epochs - self._epoch) * len(self.dataloader) - self._done
        return super().run()

    def run_epoch(self) -> None:
        """Train to the end of the epoch."""
        done, self._done = self._done, 0
        # Checkpoints hold it.
        began = {"epoch": self._epoch, "iter": self._iter - done, "length": len(self.dataloader)}
        self.runner.message_hub.update_info("epoch_began", began)
        if not done:
            super().run_epoch()
            return
        self.runner.logger.info(f"epoch {self._epoch + 1} goes on after {done} of {len(self.dataloader)} iterations")
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        for idx, batch in enumerate(_rest(self.dataloader, done), done):
            self.run_iter(idx, batch)
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1

    def _done_before(self) -> int:
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


class _Rest:
    """The batches of a batch sampler after the first ones."""

    def __init__(self, batches: Any, done: int) -> None:
        self.batches, self.done = batches, done

    def __iter__(self) -> Iterator[list[int]]:
        for number, batch in enumerate(self.batches):
            if number >= self.done:
                yield batch

    def __len__(self) -> int:
        return max(len(self.batches) - self.done, 0)


def _rest(loader: DataLoader[Any], done: int) -> DataLoader[Any]:
    """Return a loader of what is left of the epoch; a DataLoader's own sampler cannot be replaced."""
    return DataLoader(
        loader.dataset,
        batch_sampler=_Rest(loader.batch_sampler, done),
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        prefetch_factor=loader.prefetch_factor,
    )
