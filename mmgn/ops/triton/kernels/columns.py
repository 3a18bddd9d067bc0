"""Tiles of pixels x columns of a channels_last tensor, (N, S, C) in memory.

The columns are BLOCK_G whole groups of D channels, each padded to BLOCK_D, or, where a group is wider than a program
can take, one of the SUBS blocks of one group. V divides C, and D wherever a group is padded or cut, so that every
access is one wide instruction.
"""

import triton
import triton.language as tl


@triton.jit
def tile(
    pid,
    chunks,
    groups,
    D: tl.constexpr,
    V: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_D: tl.constexpr,
    SUBS: tl.constexpr,
):
    """Return a program's place: the sample, the chunk, the block of columns; its pixels, columns and valid columns."""
    blocks = tl.cdiv(groups, BLOCK_G) * SUBS
    block = pid % blocks
    chunk = pid // blocks % chunks
    # Before it meets groups: N*G can pass 2**31 where groups are small.
    n = (pid // blocks // chunks).to(tl.int64)
    i = tl.arange(0, BLOCK_G * BLOCK_D)[None, :]  # [1, COLUMNS]
    if D == BLOCK_D:
        c = block * (BLOCK_G * BLOCK_D) + i
        # By vector, so that the mask is known to be one for all of its lanes.
        valid = c // V < groups * D // V
    else:
        g = block // SUBS * BLOCK_G + i // BLOCK_D
        d = block % SUBS * BLOCK_D + i % BLOCK_D
        c = g * D + d
        valid = (g < groups) & (d // V < D // V)
    p = chunk * BLOCK_P + tl.arange(0, BLOCK_P)[:, None]  # [BLOCK_P, 1]
    return n, chunk, block, p, c, valid


@triton.jit
def place(n, p, c, S, groups, D: tl.constexpr, V: tl.constexpr):
    """Return the offsets of pixels p and columns c of sample n."""
    return (n * S + p) * (groups * D // V) * V + c  # [BLOCK_P, COLUMNS]


@triton.jit
def sum_groups(columns, BLOCK_G: tl.constexpr, BLOCK_D: tl.constexpr):
    """Sum a value per column, [1, COLUMNS], over the columns of each group: [BLOCK_G, 1]."""
    return tl.sum(columns.reshape(BLOCK_G, BLOCK_D), 1, keep_dims=True)


@triton.jit
def spread(value, BLOCK_G: tl.constexpr, BLOCK_D: tl.constexpr):
    """Give a value per group, [BLOCK_G, 1], to each of its columns: [1, COLUMNS]."""
    return value.broadcast_to(BLOCK_G, BLOCK_D).reshape(1, BLOCK_G * BLOCK_D)


@triton.jit
def affine(x_hat, weight_ptr, bias_ptr, c, valid, HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr):
    """Return weight * x_hat + bias."""
    if HAS_WEIGHT:
        x_hat *= tl.load(weight_ptr + c, mask=valid, other=0).to(tl.float32)
    if HAS_BIAS:
        x_hat += tl.load(bias_ptr + c, mask=valid, other=0).to(tl.float32)
    return x_hat
