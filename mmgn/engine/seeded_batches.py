"""Batches whose images are augmented alike whatever loads them: by the seed, the epoch and the image's number."""

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from mmengine.dist import get_rank
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from mmgn.engine import random_states


class SeededBatches:
    """The batches of a batch sampler, with a seed for each image.

    mmengine seeds the workers, so that what an image meets depends on their number and on all they have loaded before.
    Here the generators are seeded before each image, by the run's seed, the epoch, the image's index, how often it was
    drawn in this epoch before, and the rank: samplers that repeat an image within an epoch want it augmented anew.
    A process that loads its images itself finds its generators as they were.

    Transforms that keep images of earlier calls, as mmdet's ``CachedMosaic``, still depend on them. Libraries with
    generators of their own, as albumentations 2, and data sets that load a batch by ``__getitems__``, are not seeded
    for each image.

    Attributes:
        seed, epoch: of the next iteration's images.
        skip: how many batches the next iteration leaves out at its beginning, without loading them.
    """

    def __init__(self, batches: Any, endless: bool = False) -> None:
        """Wrap a batch sampler; where ``endless``, begin it again with the next epoch whenever it ends."""
        self.batches, self.endless = batches, endless
        self.seed = self.epoch = self.skip = 0

    def __getattr__(self, name: str) -> Any:
        # The sampler, which hooks tell the epoch, and the batch size. Not before __init__, as in unpickling.
        if name == "batches":
            raise AttributeError(name)
        return getattr(self.batches, name)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator["SeededBatch"]:
        skip, self.skip = self.skip, 0
        epoch = self.epoch
        while True:
            draws: Counter[str] = Counter()
            for indices in self.batches:
                before = []
                for index in indices:
                    # Not all that a sampler may draw is hashable.
                    name = repr(index)
                    before.append((index, draws[name]))
                    draws[name] += 1
                if skip:
                    skip -= 1
                else:
                    yield SeededBatch(indices, [_hashed(self.seed, get_rank(), epoch, *each) for each in before])
            if not self.endless or not draws:
                return
            epoch += 1
            if hasattr(getattr(self.batches, "sampler", None), "set_epoch"):
                self.batches.sampler.set_epoch(epoch)


class SeededBatch(Sequence[Any]):
    """The indices of a batch; to iterate over them seeds the generators for each."""

    def __init__(self, indices: list[Any], seeds: list[int]) -> None:
        self.indices, self.seeds = indices, seeds

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, number: Any) -> Any:
        return self.indices[number]

    def __iter__(self) -> Iterator[Any]:
        # A worker's generators are for nothing else.
        kept = random_states.get(gpu=False) if get_worker_info() is None else None
        try:
            for index, seed in zip(self.indices, self.seeds, strict=True):
                random_states.seed(seed)
                yield index
        finally:
            if kept:
                random_states.put(kept)


def seed_batches(loader: DataLoader[Any], endless: bool = False) -> bool:
    """Have a loader's images seeded, in place.

    Args:
        loader: of a data set with indices.
        endless: whether its iteration goes on with the next epoch.

    Returns:
        Whether they are: a loader that draws no batches of indices stays as it is.
    """
    batches = loader.batch_sampler
    if isinstance(batches, SeededBatches):
        batches = batches.batches
    if batches is None or isinstance(loader.dataset, IterableDataset):
        return False
    # A DataLoader refuses another batch sampler, which its sampler and batch_size would not fit. They fit this one.
    object.__setattr__(loader, "batch_sampler", SeededBatches(batches, endless))
    # The seeds of the workers, which it draws for every iteration, come out of the training's generator otherwise.
    if loader.generator is None:
        loader.generator = torch.Generator()
    return True


def batches_after(loader: DataLoader[Any], skip: int, seed: int, epoch: int = 0) -> Iterator[Any]:
    """Return an iterator over a loader's batches after the first ones.

    Args:
        loader: of :func:`seed_batches`. Another one's first batches are loaded for nothing.
        skip: how many are left out.
        seed: the run's.
        epoch: of these batches, or of the first of them.
    """
    batches = loader.batch_sampler
    if not isinstance(batches, SeededBatches):
        return itertools.islice(loader, skip, None)
    batches.seed, batches.epoch, batches.skip = seed, epoch, skip
    return iter(loader)


def _hashed(*values: Any) -> int:
    return int.from_bytes(hashlib.blake2b(repr(values).encode(), digest_size=8).digest(), "big") >> 1
