"""Memory that shows when nobody wrote it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def poisoned_empty() -> Iterator[None]:
    """Fill what torch allocates uninitialised in the block: NaN, or an integer type's largest value (True for bool).

    That is ``empty``, ``empty_like``, ``empty_strided``, ``new_empty`` and ``resize_``, on every device, wherever they
    are called from: custom ops, autograd Functions, torch's own kernels in C++. The filling is torch's, a part of its
    deterministic algorithms, which are on in the block; an op without one warns, or raises where it would have before.
    """
    # A property of the module's class, of which type checkers know nothing.
    memory: Any = torch.utils.deterministic
    fill = memory.fill_uninitialized_memory
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=warn_only or not enabled)
    memory.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        memory.fill_uninitialized_memory = fill
