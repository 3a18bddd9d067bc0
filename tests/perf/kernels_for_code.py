"""Kernels whose code is known beforehand, for the tests of what reads code."""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["rows"])
def copy(x_ptr, y_ptr, rows, BLOCK: tl.constexpr, V: tl.constexpr):
    """Copy BLOCK rows of V elements."""
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)[:, None]
    offsets = row.to(tl.int64) * V + tl.arange(0, V)[None, :]
    tl.store(y_ptr + offsets, tl.load(x_ptr + offsets, mask=row < rows, other=0), mask=row < rows)


@triton.jit(do_not_specialize=["trips", "scale"])
def total(x_ptr, w_ptr, y_ptr, trips, scale, BLOCK: tl.constexpr, V: tl.constexpr):
    """Sum ``trips`` blocks of rows, in a loop."""
    sums = tl.zeros([BLOCK, V], tl.float32)
    for k in range(trips):
        row = (tl.program_id(0) * trips + k) * BLOCK + tl.arange(0, BLOCK)[:, None]
        sums += tl.load(x_ptr + row.to(tl.int64) * V + tl.arange(0, V)[None, :]).to(tl.float32)
    if w_ptr is not None:
        sums *= tl.load(w_ptr)
    tl.store(y_ptr + tl.program_id(0), tl.sum(sums) * scale)


@triton.jit(do_not_specialize=["n"])
def narrow(x_ptr, y_ptr, n, BLOCK: tl.constexpr):
    """Copy n elements with a mask on each: nothing says that vectors are whole."""
    offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_ptr + offsets, tl.load(x_ptr + offsets, mask=offsets < n), mask=offsets < n)


@triton.jit
def crowded(x_ptr, y_ptr, BLOCK: tl.constexpr):
    """Hold more values in a thread than it has registers, twice used."""
    offsets = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offsets).to(tl.float32)
    mean = tl.sum(x)
    tl.store(y_ptr + offsets, x - mean)


KERNELS = {"copy": copy, "total": total, "narrow": narrow, "crowded": crowded}
