"""What a data set draws depends on the seed, the epoch and the index, and on nothing that was done before."""

import itertools
import random

import numpy as np
import pytest

pytest.importorskip("mmengine")
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from mmgn.engine import random_states
from mmgn.engine.seeded_batches import batches_after, seed_batches


class Draws(torch.utils.data.Dataset):
    """Each index with a number of every generator."""

    def __len__(self):
        return 10

    def __getitem__(self, index):
        return index, random.random(), np.random.rand(), float(torch.rand(()))


def loader_of(dataset=None, sampler=DefaultSampler, endless=False, **more):
    dataset = dataset or Draws()
    loader = DataLoader(dataset, 4, sampler=sampler(dataset, seed=1), collate_fn=list, **more)
    assert seed_batches(loader, endless)
    return loader


def test_workers_have_no_say_and_epochs_and_seeds_have():
    epochs = {}
    for workers in (0, 1, 3):
        for persistent in {False, workers > 0}:
            loader = loader_of(num_workers=workers, persistent_workers=persistent)
            # Once more the first, after others.
            epochs[workers, persistent] = [list(batches_after(loader, 0, 7, epoch)) for epoch in (0, 1, 0)]
    first, *others = epochs.values()
    assert all(other == first for other in others)
    assert first[0] == first[2]
    drawn = {numbers for batch in (*first[0], *first[1]) for _, *numbers in batch for numbers in numbers}
    assert len(drawn) == 2 * 10 * 3
    assert list(batches_after(loader_of(), 0, 8)) != first[0]


def test_batches_are_left_out_without_loading_them():
    loader = loader_of(num_workers=0)
    whole = list(batches_after(loader, 0, 7, 2))
    loaded = []
    loader.dataset.__class__ = type(
        "Recorded", (Draws,), {"__getitem__": lambda self, i: loaded.append(i) or Draws()[i]}
    )
    assert list(batches_after(loader, 2, 7, 2)) == whole[2:]
    assert len(loaded) == len(whole[2])
    # Once: the epoch after that is whole.
    assert len(list(loader)) == 3


def test_the_trainings_own_generators_are_as_they_were():
    before = random_states.get()
    list(batches_after(loader_of(), 0, 7))
    after = random_states.get()
    assert (before["python"], before["numpy"]) == (after["python"], after["numpy"])
    assert before["torch"].equal(after["torch"])
    numbers = random.random(), np.random.rand(), float(torch.rand(()))
    random_states.put(before)
    assert numbers == (random.random(), np.random.rand(), float(torch.rand(())))


def test_an_image_that_is_drawn_again_in_an_epoch_is_augmented_anew():
    loader = DataLoader(Draws(), batch_sampler=[[3, 3], [3]], collate_fn=list)
    seed_batches(loader)
    assert len({numbers for batch in batches_after(loader, 0, 7) for numbers in batch}) == 3


def test_an_index_may_be_a_list():
    class Pairs(Draws):
        def __getitem__(self, index):
            return super().__getitem__(index["pair"])

    loader = DataLoader(Pairs(), batch_sampler=[[{"pair": [1, 2]}, {"pair": [1, 2]}]], collate_fn=list)
    seed_batches(loader)
    (((pair, *once), (_, *again)),) = batches_after(loader, 0, 7)
    assert pair == [1, 2] and once != again


@pytest.mark.parametrize("sampler", [DefaultSampler, InfiniteSampler])
@pytest.mark.parametrize("workers", [0, 2])
def test_endless_batches_go_on_from_any(sampler, workers):
    whole = list(itertools.islice(batches_after(loader_of(sampler=sampler, endless=True), 0, 7), 8))
    assert len({numbers[1] for batch in whole for numbers in batch}) == sum(map(len, whole))
    loader = loader_of(sampler=sampler, endless=True, num_workers=workers)
    assert list(itertools.islice(batches_after(loader, 5, 7), 3)) == whole[5:]


def test_what_others_read_of_a_loader_stays():
    loader = loader_of()
    assert isinstance(loader.batch_sampler.batches, BatchSampler)
    assert (loader.batch_size, loader.batch_sampler.batch_size, loader.batch_sampler.drop_last, len(loader)) == (
        4,
        4,
        False,
        3,
    )
    assert loader.batch_sampler.sampler is loader.sampler
    batches = loader.batch_sampler.batches
    # As for a second runner.
    seed_batches(loader)
    assert loader.batch_sampler.batches is batches


class Stream(IterableDataset):
    def __iter__(self):
        return iter(range(6))


def test_loaders_without_indices_stay():
    for loader in (DataLoader(Stream(), 2), DataLoader(Draws(), None)):
        sampler = loader.batch_sampler
        assert not seed_batches(loader)
        assert loader.batch_sampler is sampler
    assert [batch.tolist() for batch in batches_after(DataLoader(Stream(), 2), 1, 7)] == [[2, 3], [4, 5]]


def test_data_sets_of_mmdet_keep_their_ways():
    """Wrappers that mix images, and batches by aspect ratio."""
    pytest.importorskip("mmdet")
    from mmdet.datasets.samplers import AspectRatioBatchSampler

    class Sized(Draws):
        def get_data_info(self, index):
            return {"width": 1 + index % 2, "height": 1.5}

    dataset = torch.utils.data.ConcatDataset([Sized(), Sized()])
    dataset.get_data_info = lambda index: Sized().get_data_info(index)
    batches = AspectRatioBatchSampler(DefaultSampler(dataset, seed=1), 4)
    loaders = [DataLoader(dataset, batch_sampler=batches, collate_fn=list, num_workers=n) for n in (0, 2)]
    found = [list(batches_after(loader, 0, 7)) for loader in loaders if seed_batches(loader)]
    assert found[0] == found[1]
    assert sorted(numbers[0] for batch in found[0] for numbers in batch) == sorted([*range(10)] * 2)
