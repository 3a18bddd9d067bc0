"""What others launch for group norm, activation and residual, priced by their passes over memory.

Each kernel is given as the tensors it reads and writes, walks them once from front to back, and is priced at full DRAM
bandwidth after the same simulated L2 as ours: never slower than the real one.

* torch eager: moments, affine, the residual's addition and the activation are kernels of their own
  (``aten/native/cuda/group_norm_kernel.cu``); a channels_last input is copied to contiguous memory and the next layer
  copies the result back (``native_group_norm`` calls ``contiguous()``, and so does its backward).
* torch eager under autocast: group norm is on the float32 list, so a half-precision input is cast first, everything up
  to the activation runs in float32, and the next layer casts back.
* Inductor (``torch.compile``): a reduction, and one fused elementwise kernel; in one kernel where it does not split the
  reduction (``reduction_split_factor`` in ``torch/_inductor/choices.py``: two groups for each SM, or groups of at most
  8192 elements). It is taken to handle channels_last and autocast without extra copies. The gradients of the parameters
  are sums over samples, which no kernel of a group can make: one tiny kernel more.
"""

from dataclasses import dataclass

from mmgn.ops.triton.footprint import Access
from mmgn.ops.triton.problem import Problem
from mmgn.perf import cache
from mmgn.perf.devices import GPU

#: Elements that a program of a priced kernel covers, and programs of an SM at once; they decide next to nothing.
CHUNK = 16384
RESIDENT = 8
#: Bytes of a tile of the simulated L2: they stream, so that coarse is exact enough.
TILE = 32768
INDUCTOR_UNSPLIT = 8192
#: The largest group that Inductor keeps in registers between its two uses.
INDUCTOR_PERSISTENT = 1024


@dataclass(frozen=True)
class Kernel:
    """One kernel: the tensors it streams through, as (name, bytes of an element).

    Attributes:
        reads: in the order it reads them; a tensor named twice is read twice by each program.
        writes: likewise.
        chunk: elements of one program.
    """

    reads: tuple[tuple[str, int], ...] = ()
    writes: tuple[tuple[str, int], ...] = ()
    chunk: int = CHUNK


def _copy(source: tuple[str, int], target: tuple[str, int]) -> Kernel:
    return Kernel((source,), (target,))


def eager_forward(problem: Problem, autocast: bool = False) -> list[Kernel]:
    """Return torch eager's kernels: 5 passes for norm + ReLU in one dtype; statistics 1, affine 2, ReLU 2."""
    half, b = problem.itemsize, 4 if autocast else problem.itemsize
    copied = problem.layout == "channels_last"
    kernels: list[Kernel] = []
    x = ("x", half)
    if autocast:
        kernels.append(_copy(x, x := ("x32", 4)))
    if copied:
        kernels.append(_copy(x, x := ("xc", b)))
    out = ("norm", b)
    # The moments leave two numbers a group, from which a tiny kernel makes two a channel.
    kernels += [Kernel((x,)), Kernel(), Kernel((x,), (out,))]
    if problem.residual:
        kernels.append(Kernel((out, ("residual", half)), (out := ("sum", b),)))
    if problem.activation != "none":
        kernels.append(Kernel((out,), (out := ("y", b),)))
    if autocast:
        kernels.append(_copy(out, out := ("y16", half)))
    if copied:
        kernels.append(_copy(out, ("ycl", half)))
    return kernels


def eager_backward(problem: Problem, autocast: bool = False) -> list[Kernel]:
    """Return torch eager's kernels: 8 passes for norm + ReLU in one dtype; ReLU 3, reductions 2, dx 3."""
    half, b = problem.itemsize, 4 if autocast else problem.itemsize
    copied = problem.layout == "channels_last"
    kernels: list[Kernel] = []
    x, dy = ("x", b), ("dy", half)
    if autocast:
        kernels.append(_copy(dy, dy := ("dy32", 4)))
    if problem.activation != "none":
        # ReLU looks at its result, SiLU at its input.
        kernels.append(Kernel((dy, ("y", b)), (dy := ("dz", b),)))
    if problem.residual and autocast:
        kernels.append(_copy(dy, ("dresidual", half)))
    if copied:
        kernels += [_copy(x, x := ("xc", b)), _copy(dy, dy := ("dzc", b))]
    dx = ("dx", b)
    # Sums of a channel, from which two tiny kernels make two numbers a group and the gradients of the parameters.
    kernels += [Kernel((x, dy)), Kernel(), Kernel(), Kernel((x, dy), (dx,))]
    if autocast:
        kernels.append(_copy(dx, dx := ("dx16", half)))
    if copied:
        kernels.append(_copy(dx, ("dxcl", half)))
    return kernels


def inductor(problem: Problem, gpu: GPU, backward: bool = False) -> list[Kernel]:
    """Return Inductor's kernels: 3 passes forward; 7 backward with ReLU, whose mask is read off y."""
    b = problem.itemsize
    mask = (("y", b),) if problem.activation == "relu" else ()
    residual = (("residual", b),) if problem.residual else ()
    if backward:
        if problem.residual and problem.activation == "silu":
            mask = residual
        reduced: tuple[tuple[str, int], ...] = (("x", b), ("dy", b), *mask)
        applied, written = reduced, (("dx", b),) + ((("dresidual", b),) if problem.residual else ())
        summed = [Kernel()]
    else:
        reduced, applied, written, summed = (("x", b),), (("x", b), *residual), (("y", b),), []
    if problem.n * problem.groups < 2 * gpu.sm_count and problem.m > INDUCTOR_UNSPLIT:
        return [Kernel(reduced), Kernel(), Kernel(applied, written), *summed]
    if problem.m <= INDUCTOR_PERSISTENT:
        return [Kernel(tuple(dict.fromkeys(reduced + applied)), written, chunk=problem.m), *summed]
    return [Kernel(reduced + applied, written, chunk=problem.m), *summed]


def seconds(kernels: list[Kernel], problem: Problem, gpu: GPU) -> float:
    """Return the modelled time of kernels that run at full DRAM bandwidth."""
    sizes = {name: problem.numel * b for k in kernels for name, b in k.reads + k.writes}
    walks = [_walk(kernel, problem.numel, gpu) for kernel in kernels]
    moved = sum(t.read + t.written for t in cache.simulate(walks, sizes, gpu.l2_bytes, TILE))
    return moved / gpu.bandwidth + len(kernels) * gpu.launch_seconds


def price(problem: Problem, gpu: GPU, backward: bool = False) -> dict[str, float | None]:
    """Return modelled seconds of torch eager, of eager under autocast (None for float32), and of Inductor."""
    eager = eager_backward if backward else eager_forward
    half = problem.itemsize < 4
    return {
        "eager": seconds(eager(problem), problem, gpu),
        "autocast": seconds(eager(problem, autocast=True), problem, gpu) if half else None,
        "inductor": seconds(inductor(problem, gpu, backward), problem, gpu),
    }


def _walk(kernel: Kernel, numel: int, gpu: GPU) -> cache.Walk:
    tensors = [(*t, False) for t in kernel.reads] + [(*t, True) for t in kernel.writes]
    # A program of fewer than CHUNK elements is not worth simulating alone: its neighbours run beside it.
    chunk = kernel.chunk * max(CHUNK // kernel.chunk, 1)

    def accesses(program: int) -> list[Access]:
        first = program * chunk
        size = min(chunk, numel - first)
        return [(name, first * b, size * b, 1, size * b, write) for name, b, write in tensors]

    return cache.Walk(-(-numel // chunk) if tensors else 0, gpu.sm_count * RESIDENT, accesses)
