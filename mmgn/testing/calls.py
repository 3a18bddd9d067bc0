"""Which modules a model calls."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from torch import nn


@contextmanager
def counted_calls() -> Iterator[Counter[type[nn.Module]]]:
    """Count the calls of modules by class; no hook sees them, as hooks part what ``fuse_gn`` has fused."""
    calls: Counter[type[nn.Module]] = Counter()
    call = nn.Module.__call__

    def counting(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        calls[type(self)] += 1
        return call(self, *args, **kwargs)

    with mock.patch.object(nn.Module, "__call__", counting):
        yield calls
