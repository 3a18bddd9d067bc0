"""The states of the generators that a training draws from: kept, put back, seeded."""

import random
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object

#: Where a checkpoint's ``meta`` has them, one for each rank.
KEY = "random_states"


def get(gpu: bool = True) -> dict[str, Any]:
    """Return the states of Python's, numpy's and torch's generators, and of the current GPU's.

    Args:
        gpu: with the GPU's.

    Returns:
        Tensors and plain types alone, which load weights-only.
    """
    state: Any = np.random.get_state()
    name, keys, *more = state
    states = {"python": random.getstate(), "numpy": (name, keys.tolist(), *more), "torch": torch.get_rng_state()}
    if gpu and torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def put(states: dict[str, Any]) -> None:
    """Put back what :func:`get` has returned, here or in another process."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    # A checkpoint is loaded to the device of the model.
    torch.set_rng_state(states["torch"].cpu())
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"].cpu())


def of_all_ranks() -> list[dict[str, Any]]:
    """Return the states of all ranks, in their order; each rank calls it."""
    states: list[dict[str, Any]] = all_gather_object(get())
    return states


def seed(value: int) -> None:
    """Seed the generators that data are augmented with, which a GPU's is not among."""
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.default_generator.manual_seed(value)
