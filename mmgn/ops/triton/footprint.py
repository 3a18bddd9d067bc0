"""Which bytes a program of a launch touches, in order. Pure Python.

A mirror of the kernels' arithmetic (``cover``, ``columns``, ``finalize``) in whole runs of bytes. Bytes that a program
loads twice, in a row that two of its channels share, are there once. Numbers per channel or per group, a few of which
every program loads, are left out.
"""

import itertools
from collections.abc import Iterator

from mmgn.ops.triton.plan import Launch, Plan

#: Buffer, first byte, bytes of a row, rows, bytes from row to row, is it a write.
Access = tuple[str, int, int, int, int, bool]
#: First element, elements of a row, rows, elements from row to row.
Run = tuple[int, int, int, int]

#: Buffers of x's size.
ACTIVATIONS = ("x", "y", "residual", "dy", "dx", "dresidual")
#: Kernels whose first program takes the tensor's end.
REVERSED = ("apply", "apply_backward")


def footprint(plan: Plan, launch: Launch, program: int) -> list[Access]:
    """Return the accesses of a program to activations and partials: what it reads, then what it writes."""
    layout, _, kernel = launch.kernel.rpartition(".")
    arguments = {name: value for name, value in launch.scalars + launch.constants if isinstance(value, int)}
    pid = launch.programs - 1 - program if kernel in REVERSED else program
    loads: list[Run] = []
    stores: list[Run] = []
    if layout == "channels_last":
        loads, sums = _columns(arguments, pid, of_groups=kernel == "statistics")
        stores = loads
    elif layout:
        loads, stores, sums = _rows(arguments, pid)
    else:
        sums = list(_partials_of_group(arguments, pid))

    def runs(name: str, write: bool) -> Iterator[Access]:
        planes, itemsize, touched = [0], plan.problem.itemsize, stores if write else loads
        if name == "partials":
            # Means and squared deviations, or the sums a and b.
            planes, itemsize, touched = [0, arguments["partials"]], 4, sums
        elif name not in ACTIVATIONS:
            return
        for plane, (first, elements, rows, stride) in itertools.product(planes, touched):
            yield name, (plane + first) * itemsize, elements * itemsize, rows, stride * itemsize, write

    accesses = [access for name, _ in launch.reads for access in runs(name, False)]
    return accesses + [access for name, _ in launch.writes for access in runs(name, True)]


def _run(first: int, end: int) -> Run:
    return first, end - first, 1, end - first


def _rows(a: dict[str, int], pid: int) -> tuple[list[Run], list[Run], list[Run]]:
    """Return a program's loads, stores and partials: contiguous kernels."""
    v, chunks = a["V"], a.get("chunks", 1)
    block, chunk = divmod(pid, chunks)
    if "rows" in a:
        row = block * a["rows"] + chunk * a["chunk_rows"]
        end = min(row + a["chunk_rows"], (block + 1) * a["rows"])
        return [_run(row * v, end * v)], [], [_run(pid, pid + 1)]
    groups, d, s = a["groups"], a["D"], a["S"]
    if "BLOCK_G" in a:
        n, block_of_g = divmod(pid, -(-groups // a["BLOCK_G"]))
        g = block_of_g * a["BLOCK_G"]
        first, end = (n * groups + g) * d, (n * groups + min(g + a["BLOCK_G"], groups)) * d
        # Groups are whole rows: what their channels share with others, they share among themselves.
        tensor = [_run(first * s, end * s)]
        return tensor, tensor, [_run(first, end)]
    ng, block_of_d = divmod(block, -(-d // a["BLOCK_D"]))
    first = ng * d + block_of_d * a["BLOCK_D"]
    channels = range(first, min(first + a["BLOCK_D"], (ng + 1) * d))
    loads, stores = [], []
    for channel in channels:
        start, last = channel * s // v, -(-(channel + 1) * s // v)
        row = start + chunk * a["chunk_rows"]
        end = min(row + a["chunk_rows"], last)
        if row < end:
            loads.append(_run(row * v, end * v))
        # The channel in which a row starts stores it.
        row += row == start and channel * s % v > 0
        if row < end:
            stores.append(_run(row * v, end * v))
    return loads, stores, [_run(channel * chunks + chunk, channel * chunks + chunk + 1) for channel in channels]


def _columns(a: dict[str, int], pid: int, of_groups: bool) -> tuple[list[Run], list[Run]]:
    """Return what a program loads or stores of a tensor, and its partials, a group's or a column's: channels_last."""
    groups, d, s, pixels = a["groups"], a["D"], a["S"], a["BLOCK_P"]
    chunks, subs = a.get("chunks", 1), a.get("SUBS", 1)
    rest, block = divmod(pid, -(-groups // a["BLOCK_G"]) * subs)
    n, chunk = divmod(rest, chunks)
    block_of_g, sub = divmod(block, subs)
    taken = range(block_of_g * a["BLOCK_G"], min((block_of_g + 1) * a["BLOCK_G"], groups))
    first, end = taken.start * d + sub * a["BLOCK_D"], taken.stop * d
    if subs > 1:
        end = min(end, first + a["BLOCK_D"])
    c, p = groups * d, chunk * pixels
    tensor = [((n * s + p) * c + first, end - first, min(pixels, s - p), c)]
    if of_groups:
        places = [((n * groups + g) * chunks + chunk) * subs + sub for g in taken]
        return tensor, [_run(place, place + 1) for place in places]
    row = (n * chunks + chunk) * c
    return tensor, [_run(row + first, row + end)]


def _partials_of_group(a: dict[str, int], ng: int) -> Iterator[Run]:
    """Yield what a program of the finalize kernels reads of a plane of partials."""
    if "count" in a:
        yield _run(ng * a["count"], (ng + 1) * a["count"])
        return
    chunks, d = a["chunks"], a["D"]
    if not a["CHANNELS_LAST"]:
        yield _run(ng * d * chunks, (ng + 1) * d * chunks)
        return
    n, g = divmod(ng, a["groups"])
    for chunk in range(n * chunks, (n + 1) * chunks):
        yield _run(chunk * a["C"] + g * d, chunk * a["C"] + (g + 1) * d)
