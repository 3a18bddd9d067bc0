"""Rows of V elements that cover a channel of a contiguous tensor.

A channel of S elements, S no multiple of V, starts and ends inside a row. Kernels load the whole rows, so that every
access of the tensors is one wide instruction. A row never holds more than two channels, as V <= S, nor two groups, as
V divides D*S: the plan sees to both. A row that two channels share is loaded and computed by both, each lane with
the parameters of its channel; the channel in which it starts stores it, and in sums a channel counts its own lanes.
"""

import triton
import triton.language as tl


@triton.jit
def tile(pid, chunks, chunk_rows, D, V: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_R: tl.constexpr):
    """Return a program's part of a group: the group, of all N*G, the channels, rows and lanes, and the valid rows."""
    block = pid // chunks
    blocks = tl.cdiv(D, BLOCK_D)
    d = block % blocks * BLOCK_D + tl.arange(0, BLOCK_D)[:, None, None]
    r = tl.arange(0, BLOCK_R)[None, :, None]
    return block // blocks, d, pid % chunks * chunk_rows + r, tl.arange(0, V)[None, None, :], r < chunk_rows


@triton.jit
def cover(nc, r, lane, S, V: tl.constexpr, EVEN: tl.constexpr):
    """Tell of row r of channel nc, of all N*C: where it is and which of its lanes are whose.

    EVEN: S is a multiple of V.

    Returns:
        offsets of the elements; whether the row is needed; whether it starts in the channel itself, not in the one
        before; the lane at which the row's second channel starts.
    """
    if EVEN:
        first = nc.to(tl.int64) * (S // V)
        needed = r < S // V
        starts = needed
        split = V
    else:
        # Unsigned, so that a division by V is a shift.
        start = nc.to(tl.uint64) * S.to(tl.uint64)
        first = (start // V).to(tl.int64)
        head = (start % V).to(tl.int32)
        needed = r * V < head + S
        starts = r * V >= head
        split = tl.where(starts, head + S - r * V, head)
    return (first + r) * V + lane, needed, starts, split


@triton.jit
def own(value, starts, split, lane, EVEN: tl.constexpr):
    """Return value in the lanes of the channel itself, 0 in those of its neighbours."""
    if not EVEN:
        # Of bits, as predicates for every lane would not fit in registers, and a product with 0 keeps NaN and inf.
        first = tl.where(starts, -1, 0)  # [..., ROWS, 1]
        bits = value.to(tl.int32, bitcast=True) & tl.where(lane < split, first, ~first)
        value = bits.to(tl.float32, bitcast=True)
    return value


@triton.jit
def per_channel(ptr, c, last, starts, split, lane, mask, EVEN: tl.constexpr):
    """Load a parameter of channel c, or of its neighbours in the lanes that belong to them; last: there is no next."""
    if EVEN:
        p = tl.load(ptr + c, mask=mask, other=0).to(tl.float32)
    else:
        c = tl.where(starts, c, c - 1)  # [..., ROWS, 1]
        first = tl.load(ptr + c, mask=mask, other=0).to(tl.float32)
        second = tl.load(ptr + tl.minimum(c + 1, last), mask=mask, other=0).to(tl.float32)
        p = tl.where(lane < split, first, second)
    return p


@triton.jit
def affine(
    x_hat,
    weight_ptr,
    bias_ptr,
    c,
    last,
    starts,
    split,
    lane,
    mask,
    EVEN: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
):
    """Return weight * x_hat + bias."""
    if HAS_WEIGHT:
        x_hat *= per_channel(weight_ptr, c, last, starts, split, lane, mask, EVEN)
    if HAS_BIAS:
        x_hat += per_channel(bias_ptr, c, last, starts, split, lane, mask, EVEN)
    return x_hat


@triton.jit
def sum_rows(value, counted=None):
    """Sum over rows and lanes, the last two dimensions; of the rows that are counted, if not all are."""
    RANK: tl.constexpr = len(value.shape)
    rows = tl.sum(value, RANK - 1, keep_dims=True)
    if counted is not None:
        rows = tl.where(counted, rows, 0.0)
    return tl.sum(rows, RANK - 2, keep_dims=True)


@triton.jit
def issue_loads():
    """Have all loads so far under way before what comes next: the assembler moves none across a barrier.

    Left alone it puts the first row's arithmetic before the last row's load, and fewer bytes are in flight.
    """
    tl.debug_barrier()
