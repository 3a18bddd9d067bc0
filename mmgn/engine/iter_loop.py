"""ResumableIterLoop: an iteration-based training that goes on without loading what it has trained on."""

from collections.abc import Iterator
from typing import Any

from mmengine.registry import LOOPS
from mmengine.runner import BaseLoop, IterBasedTrainLoop

from mmgn.engine.seeded_batches import batches_after, seed_batches


@LOOPS.register_module()
class ResumableIterLoop(IterBasedTrainLoop):
    """``IterBasedTrainLoop`` that, resumed, leaves the batches out that it was trained on.

    mmengine's loads and augments them all again. Images are augmented by the seed, the epoch and the image's number
    (:class:`mmgn.engine.seeded_batches.SeededBatches`); an epoch's end does not start the workers anew.

    Example:
        >>> train_cfg = dict(type="ResumableIterLoop", max_iters=90000, val_interval=5000)
    """

    dataloader: Any

    def __init__(self, runner: Any, dataloader: Any, *args: Any, **kwargs: Any) -> None:
        BaseLoop.__init__(self, runner, dataloader)
        loader = self.dataloader
        self._seeded = seed_batches(loader, endless=True)
        # The parent begins to load at once, before it is known from where.
        super().__init__(runner, _NotYet(loader.dataset) if self._seeded else loader, *args, **kwargs)
        self.dataloader = loader
        if self._seeded:
            self.dataloader_iterator = self._batches()

    def run(self) -> Any:
        """Train to the last iteration."""
        if not self._seeded:
            return super().run()
        # As the parent does, but for the batches that it loads, or has the sampler leave out, to get to this iteration.
        runner = self.runner
        runner.call_hook("before_train")
        runner.call_hook("before_train_epoch")
        while self._iter < self._max_iters and not self.stop_training:
            runner.model.train()
            self.run_iter(next(self.dataloader_iterator))
            self._decide_current_val_interval()
            due = self._iter % self.val_interval == 0 or self._iter == self._max_iters
            if runner.val_loop is not None and self._iter >= self.val_begin and due:
                runner.val_loop.run()
        runner.call_hook("after_train_epoch")
        runner.call_hook("after_train")
        return runner.model

    def _batches(self) -> Iterator[Any]:
        # From the iteration on that it is first asked at.
        yield from batches_after(self.dataloader, self._iter, self.runner.seed)


class _NotYet:
    """A loader's data set without its batches."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __iter__(self) -> Iterator[Any]:
        return iter(())
