"""COCO's run-length encodings, looked at without being decoded into pixels: pycocotools trusts what it is given."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

# Of 5 bits: a count of 32 bits and its sign take 7.
_MOST_CHARACTERS = 7


def sum_runs(counts: list[Any]) -> Ints:
    """Return how many pixels each encoding covers, -1 where it cannot be decoded.

    Args:
        counts: [K] of lists of run lengths, or of strings in COCO's compression: numbers of 5 bits a character, least
            first, each but the first three as the difference to the last but one (``rleToString`` in maskApi.c).
    """
    sums = np.full(len(counts), -1, np.int64)
    texts, owners = [], []
    for i, runs in enumerate(counts):
        if type(runs) is list:
            if all(type(run) is int and 0 <= run < 2**32 for run in runs):
                sums[i] = sum(runs)
        elif runs and runs.isascii():
            texts.append(runs.encode("ascii"))
            owners.append(i)
    if texts:
        sums[owners] = _sum_texts(texts)
    return sums


def _sum_texts(texts: list[bytes]) -> Ints:
    bits = np.frombuffer(b"".join(texts), np.uint8).astype(np.int64) - 48
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    ends = np.cumsum(lengths)
    text_of = np.repeat(np.arange(len(texts)), lengths)
    broken = np.zeros(len(texts), bool)
    broken[text_of[(bits < 0) | (bits > 63)]] = True

    goes_on = (bits & 32) != 0
    # A text that breaks off inside a number must not run into the next.
    broken[goes_on[ends - 1]] = True
    goes_on[ends - 1] = False
    last = np.flatnonzero(~goes_on)
    first = np.concatenate([[0], last[:-1] + 1])
    width = last - first + 1
    broken[text_of[first[width > _MOST_CHARACTERS]]] = True
    place = np.minimum(np.arange(len(bits)) - np.repeat(first, width), _MOST_CHARACTERS)
    values = np.add.reduceat((bits & 31) << (5 * place), first)
    values -= np.where(bits[last] & 16, np.int64(1) << (5 * np.minimum(width, _MOST_CHARACTERS)), 0)

    text_of = text_of[first]
    runs = _undo_differences(values, text_of)
    broken[text_of[(runs < 0) | (runs >= 2**32)]] = True
    starts = np.flatnonzero(np.diff(text_of, prepend=-1))
    # A broken text may overflow; the others' sums are their own.
    return np.where(broken, -1, np.add.reduceat(runs, starts))


def _undo_differences(values: Ints, text_of: Ints) -> Ints:
    """Return the run lengths: each but a text's first three is a difference to the last but one."""
    starts = np.flatnonzero(np.diff(text_of, prepend=-1))
    place = np.arange(len(values)) - starts[text_of]
    runs = values.copy()
    for chain in ((place % 2 == 1), (place % 2 == 0) & (place > 0)):
        total = np.cumsum(values[chain])
        owner = text_of[chain]
        begins = np.flatnonzero(np.diff(owner, prepend=-1))
        before = np.concatenate([[0], total])[begins]
        # Modulo 2**64, so exact whatever a broken text adds up to.
        runs[chain] = total - np.repeat(before, np.diff(np.append(begins, len(owner))))
    return runs
