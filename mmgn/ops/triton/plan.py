"""The launch plan: which kernels serve a call, how they cut the tensor, and the bytes they move. Pure Python.

A tensor (N, C, S), S the product of the spatial sizes, is seen as N*G groups of m = D*S elements, D = C/G.

* *whole*: a group fits on chip. One launch reads it once and writes the result.
* *split*: a group is cut into chunks, one program each. ``statistics`` leaves a mean and a sum of squared deviations
  per chunk, ``finalize`` combines them, ``apply`` normalises and walks the tensor backwards, so that it starts with
  what the first pass left in L2. Backward: ``reduce`` leaves two sums per channel and chunk, then as before.

How a group is cut depends on its own size, the dtype and the layout, never on N or on the device: a sample has the
same bits in whatever batch it rides. The device's L2 size decides only whether a result is stored with a hint not to
displace what is still to be read.
"""

import math
from dataclasses import dataclass

from mmgn.ops.triton.problem import ITEMSIZE, Device, Problem
from mmgn.ops.triton.tiling import Tile, statistics_tile, tile, whole_tile


@dataclass(frozen=True)
class Buffer:
    """A tensor that launches name: its size and dtype."""

    numel: int
    dtype: str


@dataclass(frozen=True)
class Launch:
    """One kernel launch: all that a launcher, an offline compiler or a model has to know.

    Attributes:
        kernel: name in ``mmgn.ops.triton.kernels.KERNELS``.
        programs: the grid, one-dimensional.
        tensors: (kernel argument, buffer), the buffer None where absent.
        scalars: run-time numbers by argument; kernels are not specialised on their values.
        constants: compile-time constants by argument.
        num_warps: warps of a program.
        reads: bytes loaded by buffer, in the kernel's order; masked lanes do not count.
        writes: bytes stored by buffer, likewise.
    """

    kernel: str
    programs: int
    tensors: tuple[tuple[str, str | None], ...]
    scalars: tuple[tuple[str, int | float], ...]
    constants: tuple[tuple[str, int | bool | str], ...]
    num_warps: int
    reads: tuple[tuple[str, int], ...]
    writes: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Plan:
    """The launches of one call, in order.

    Attributes:
        problem: the call.
        regime: 'whole' or 'split'.
        launches: in order.
        buffers: every tensor the launches name.
        partial_shape: of the per-channel sums, whose sum over dimensions ``partial_dims`` is (db, dw); empty where
            neither is wanted. The sum is torch's own kernel, after the launches.
        partial_dims: see ``partial_shape``.
    """

    problem: Problem
    regime: str
    launches: tuple[Launch, ...]
    buffers: dict[str, Buffer]
    partial_shape: tuple[int, ...] = ()
    partial_dims: tuple[int, ...] = ()

    @property
    def summed(self) -> tuple[int, int]:
        """Bytes that torch's sum of the partials reads and writes."""
        if not self.partial_shape:
            return 0, 0
        kept = [size for d, size in enumerate(self.partial_shape) if d not in self.partial_dims]
        return 4 * math.prod(self.partial_shape), 4 * math.prod(kept)

    def passes(self) -> float:
        """Passes over the activations that the launches load and store, in units of x's bytes."""
        big = ("x", "y", "residual", "dy", "dx", "dresidual")
        total = sum(b for launch in self.launches for name, b in launch.reads + launch.writes if name in big)
        return total / (self.problem.numel * self.problem.itemsize)


#: Partials that a finalize kernel combines at a time.
FINALIZE_BLOCK = 1024


def _launch(  # type: ignore[no-untyped-def]
    kernel: str, t: Tile, tensors: dict[str, str | None], reads: dict[str, int], writes: dict[str, int], **arguments
) -> Launch:
    """Build a launch over a tile; arguments of several capitals are constants, the others run-time numbers."""
    constant = {k for k in arguments if k.isupper() and len(k) > 1}
    return Launch(
        kernel=kernel,
        programs=t.programs,
        tensors=tuple((f"{name}_ptr", buffer) for name, buffer in tensors.items()),
        scalars=(*t.scalars, *((k, v) for k, v in arguments.items() if k not in constant)),
        constants=(*t.constants, *((k, v) for k, v in arguments.items() if k in constant)),
        num_warps=t.num_warps,
        reads=tuple((k, v) for k, v in reads.items() if v),
        writes=tuple((k, v) for k, v in writes.items() if v),
    )


def _per_group(p: Problem, bytes_read: int) -> Tile:
    """Return the tile of the finalize kernels: a program for each group."""
    return Tile(1, p.n * p.groups, 4, (), (("BLOCK_J", FINALIZE_BLOCK),), 0, 0, bytes_read)


def _store(p: Problem, device: Device) -> str:
    """Return the eviction policy of a result's stores.

    Where what is read again and what is written do not fit in L2 together, the written goes first.
    """
    return "evict_first" if 2 * p.numel * p.itemsize > device.l2_bytes else ""


def _parameters(p: Problem) -> dict[str, str | None]:
    return {"weight": "weight" if p.weight else None, "bias": "bias" if p.bias else None}


def _buffers(p: Problem, *names: str, partials: int = 0) -> dict[str, Buffer]:
    """Return the buffers by name; what is not known below is of x's size and dtype."""
    known = {"weight": Buffer(p.c, p.param_dtype), "bias": Buffer(p.c, p.param_dtype)}
    known |= {k: Buffer(p.n * p.groups, "float32") for k in ("mean", "rstd", "c1", "c2")}
    known["partials"] = Buffer(partials, "float32")
    absent = {"weight": not p.weight, "bias": not p.bias}
    return {k: known.get(k, Buffer(p.numel, p.dtype)) for k in names if not absent.get(k)}


def plan_forward(p: Problem, device: Device) -> Plan:
    """Plan ``y, mean, rstd`` of a problem with at least one element."""
    size, stats, param = p.numel * p.itemsize, 4 * p.n * p.groups, ITEMSIZE[p.param_dtype]
    residual = {"residual": "residual" if p.residual else None}
    flags = {"ACTIVATION": p.activation, "HAS_WEIGHT": p.weight, "HAS_BIAS": p.bias, "HAS_RESIDUAL": p.residual}
    tensors = {"x": "x", **_parameters(p), **residual, "y": "y", "mean": "mean", "rstd": "rstd"}
    names = ("x", "weight", "bias", *(["residual"] if p.residual else []), "y", "mean", "rstd")

    def reads(t: Tile) -> dict[str, int]:
        parameters = {k: t.per_channel * param * getattr(p, k) for k in ("weight", "bias")}
        return {"x": t.bytes, "residual": t.bytes * p.residual, **parameters}

    whole = whole_tile(p, 1 + p.residual)
    if whole:
        writes = {"y": size, "mean": stats, "rstd": stats}
        launch = _launch(f"{p.layout}.whole_forward", whole, tensors, reads(whole), writes, eps=p.eps, **flags)
        return Plan(p, "whole", (launch,), _buffers(p, *names))

    first, second = statistics_tile(p), tile(p, 1 + p.residual)
    cut = dict(first.constants) | dict(first.scalars)
    subs = cut.get("SUBS", 1)
    partials = p.n * p.groups * first.chunks * subs
    final = _per_group(p, 8 * partials)
    if p.layout == "contiguous":
        of_chunk = {"S": cut["rows"], "chunk": cut["chunk_rows"], "D": cut["V"], "BLOCK_D": cut["V"]}
    else:
        of_chunk = {"S": p.s, "chunk": cut["BLOCK_P"], "D": p.d, "BLOCK_D": cut["BLOCK_D"]}
    launches = (
        _launch(
            f"{p.layout}.statistics",
            first,
            {"x": "x", "partial": "partials"},
            {"x": first.bytes},
            {"partials": 8 * partials},
            partials=partials,
        ),
        _launch(
            "finalize",
            final,
            {"partial": "partials", "mean": "mean", "rstd": "rstd"},
            {"partials": final.bytes},
            {"mean": stats, "rstd": stats},
            count=first.chunks * subs,
            partials=partials,
            eps=p.eps,
            SUBS=subs,
            **of_chunk,
        ),
        _launch(
            f"{p.layout}.apply",
            second,
            tensors,
            {**reads(second), "mean": 4 * second.per_group, "rstd": 4 * second.per_group},
            {"y": size},
            STORE=_store(p, device),
            **flags,
        ),
    )
    return Plan(p, "split", launches, _buffers(p, *names, "partials", partials=2 * partials))


def plan_backward(p: Problem, device: Device, wanted: tuple[bool, bool, bool, bool] = (True, True, True, True)) -> Plan:
    """Plan the gradients of a problem with at least one element.

    Args:
        p: the problem.
        device: the device.
        wanted: which of dx, dweight, dbias and dresidual. Without an activation dresidual is dy itself, and nobody's
            business here.
    """
    want_dx, want_sums = wanted[0], wanted[1] or wanted[2]
    want_dresidual = wanted[3] and p.residual and p.activation != "none"
    size, param = p.numel * p.itemsize, ITEMSIZE[p.param_dtype]
    inputs = 2 + (p.saved is not None)
    flags = {"ACTIVATION": p.activation, "SAVED": p.saved or "", "HAS_WEIGHT": p.weight, "HAS_BIAS": p.bias}
    # z is rebuilt where there is an activation to undo and no y to undo it by.
    rebuilt = p.activation != "none" and p.saved != "y"
    inputs_of = {"x": "x", **_parameters(p), "saved": p.saved, "mean": "mean", "rstd": "rstd"}
    dresidual = {"dresidual": "dresidual" if want_dresidual else None}

    def reads(t: Tile, weights: int, rebuilt: bool = rebuilt) -> dict[str, int]:
        parameters = {"weight": (weights + rebuilt) * param * p.weight, "bias": rebuilt * param * p.bias}
        saved = {p.saved: t.bytes} if p.saved else {}
        groups = {"mean": 4 * t.per_group, "rstd": 4 * t.per_group}
        return {"x": t.bytes, "dy": t.bytes, **saved, **{k: t.per_channel * v for k, v in parameters.items()}, **groups}

    names = ["dy", "x", "weight", "bias", "mean", "rstd", *([p.saved] if p.saved else [])]
    names += [k for k, want in (("dx", want_dx), ("dresidual", want_dresidual)) if want]
    whole = whole_tile(p, inputs)
    if whole:
        partials = p.n * p.c
        contiguous = p.layout == "contiguous"
        read = reads(whole, want_dx if contiguous else 3 * want_dx)
        if contiguous and want_dx and p.weight:
            # c1 and c2 weigh a channel's sums by its own weight.
            read["weight"] += partials * param
        launch = _launch(
            f"{p.layout}.whole_backward",
            whole,
            {"dy": "dy", **inputs_of, "dx": "dx" if want_dx else None, **dresidual,
             "partial": "partials" if want_sums else None},
            read,
            {"dresidual": size * want_dresidual, "partials": 8 * partials * want_sums, "dx": size * want_dx},
            partials=partials,
            WANT_DX=want_dx,
            WANT_SUMS=want_sums,
            WANT_DRESIDUAL=want_dresidual,
            **flags,
        )  # fmt: skip
        names += ["partials"] if want_sums else []
        buffers = _buffers(p, *names, partials=2 * partials)
        return Plan(p, "whole", (launch,), buffers, *(((2, p.n, p.c), (1,)) if want_sums else ()))

    t = tile(p, inputs)
    partials = p.n * p.c * t.chunks
    first = _launch(
        f"{p.layout}.reduce",
        t,
        {"dy": "dy", **inputs_of, **dresidual, "partial": "partials"},
        reads(t, 0),
        {"dresidual": size * want_dresidual, "partials": 8 * partials},
        partials=partials,
        WANT_DRESIDUAL=want_dresidual,
        **flags,
    )
    by_chunk = ((p.c, t.chunks), (1, 3)) if p.layout == "contiguous" else ((t.chunks, p.c), (1, 2))
    sums = ((2, p.n, *by_chunk[0]), by_chunk[1]) if want_sums else ()
    if not want_dx:
        return Plan(p, "split", (first,), _buffers(p, *names, "partials", partials=2 * partials), *sums)

    final = _per_group(p, 8 * partials)
    groups = 4 * p.n * p.groups
    if want_dresidual:
        # The first pass has left dz: nothing to undo any more.
        read = {**reads(t, 1, False), "dresidual": t.bytes}
        read = {k: v for k, v in read.items() if k not in ("dy", p.saved)}
        flags |= {"ACTIVATION": "none", "SAVED": ""}
        inputs_of = inputs_of | {"saved": None}
    else:
        read = reads(t, 1)
    launches = (
        first,
        _launch(
            "finalize_backward",
            final,
            {"partial": "partials", "weight": inputs_of["weight"], "c1": "c1", "c2": "c2"},
            {"partials": final.bytes, "weight": partials * param * p.weight},
            {"c1": groups, "c2": groups},
            groups=p.groups,
            chunks=t.chunks,
            D=p.d,
            C=p.c,
            S=p.s,
            partials=partials,
            CHANNELS_LAST=p.layout == "channels_last",
            HAS_WEIGHT=p.weight,
        ),
        _launch(
            f"{p.layout}.apply_backward",
            t,
            {"dz": "dresidual" if want_dresidual else "dy", **inputs_of, "c1": "c1", "c2": "c2", "dx": "dx"},
            {**read, "c1": 4 * t.per_group, "c2": 4 * t.per_group},
            {"dx": size},
            STORE=_store(p, device),
            **flags,
        ),
    )
    names += ["partials", "c1", "c2"]
    return Plan(p, "split", launches, _buffers(p, *names, partials=2 * partials), *sums)
