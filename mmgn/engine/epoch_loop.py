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
    does not pass through the images before.

    Example:
        >>> train_cfg = dict(type="ResumableEpochLoop", max_epochs=24, val_interval=1)
    """

    def run_epoch(self) -> None:
        """Train to the end of the epoch."""
        done = self._iter - self._epoch * len(self.dataloader)
        if done <= 0:
            super().run_epoch()
            return
        self.runner.logger.info(f"epoch {self._epoch + 1} goes on after {done} of {len(self.dataloader)} iterations")
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        for idx, batch in enumerate(_rest(self.dataloader, done), done):
            self.run_iter(idx, batch)
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1


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
