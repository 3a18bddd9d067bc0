"""Launch plans of any shape up to 2**40 elements: what a plan owes, counted without a kernel.

A corpus' file is JSON of a problem's fields, ``d`` for the channels of a group, and of ``l2_bytes`` and ``wanted``.
"""

import math
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from fuzzing import trees
from mmgn.ops.triton.availability import MAX_PROGRAMS, MAX_SPATIAL
from mmgn.ops.triton.footprint import ACTIVATIONS, footprint
from mmgn.ops.triton.plan import Launch, Plan, plan_backward, plan_forward
from mmgn.ops.triton.problem import ITEMSIZE, Device, Problem
from mmgn.ops.triton.tiling import BYTES_PER_THREAD, WHOLE_ELEMENTS

_MOST = 2**40
# Bytes of the largest tensor that a GPU holds, a B300; larger ones' launches need not fit a grid.
_MEMORY = 288 * 10**9
# Programs of a launch that are all counted; of more, some.
_COUNTED = 400
_CHOICES: dict[str, tuple[Any, ...]] = {
    "dtype": tuple(ITEMSIZE),
    "layout": ("contiguous", "channels_last"),
    "activation": ("none", "relu", "silu"),
    **dict.fromkeys(("residual", "weight", "bias", "float32_parameters"), (False, True)),
}


def fresh(rng: Random) -> bytes:
    """Return a problem of any size: small ones, where every byte is counted, half of the time."""
    small, large = ((3, 3, 3, 3), (3, 4, 5, 5), (6, 6, 6, 6)), ((2, 8, 8, 20), (33, 3, 3, 3), (12, 10, 10, 10))
    tops = zip(("n", "groups", "d", "s"), rng.choice((*small, *large)), strict=True)
    sizes = {name: rng.randint(1, 2 ** rng.randint(1, top)) for name, top in tops}
    choices = {name: rng.choice(values) for name, values in _CHOICES.items()}
    wanted = [rng.random() < 0.7 for _ in range(4)]
    return trees.write(sizes | choices | {"l2_bytes": rng.choice((0, 2**22, 50 * 2**20, 2**40)), "wanted": wanted})


def mutate(data: bytes, rng: Random) -> bytes:
    """Change some fields."""
    return trees.mutate(data, rng, (*range(1, 40), *(2**k + e for k in range(3, 33) for e in (-1, 0, 1))), raw=0.0)


def check(data: bytes, folder: Path) -> None:
    """Plan both directions."""
    fields = trees.parse(data)
    problem = _problem(fields) if isinstance(fields, dict) else None
    if problem is None:
        return
    l2_bytes, wanted = fields.get("l2_bytes"), fields.get("wanted")
    device = Device(l2_bytes if type(l2_bytes) is int and l2_bytes >= 0 else 0)
    asked = tuple(bool(want) for want in wanted)[:4] if isinstance(wanted, list) and len(wanted) >= 4 else (True,) * 4
    if not any(asked[:3]) and not (asked[3] and problem.activation != "none" and problem.residual):
        asked = (True, True, True, True)
    for plan in _plans(problem, device, asked):
        _check_launches(plan)
        for launch in plan.launches:
            _check_cover(plan, launch, Random(data))
    alone, elsewhere = _plans(replace(problem, n=1), Device(), asked), _plans(problem, Device(0), asked)
    for plan, one, other in zip(_plans(problem, device, asked), alone, elsewhere, strict=True):
        assert _cut(plan) == _cut(one) == _cut(other), "the cut depends on the batch or the device"


def _problem(fields: dict[str, Any]) -> Problem | None:
    sizes = [fields.get(name) for name in ("n", "groups", "d", "s")]
    if not all(type(size) is int and size >= 1 for size in sizes) or math.prod(sizes) > _MOST:
        return None
    n, groups, d, s = sizes
    if n > MAX_PROGRAMS or s > MAX_SPATIAL:
        return None
    chosen = {k: next((v for v in values if v == fields.get(k)), values[0]) for k, values in _CHOICES.items()}
    param_dtype = "float32" if chosen.pop("float32_parameters") else chosen["dtype"]
    return Problem(n=n, c=groups * d, s=s, groups=groups, param_dtype=param_dtype, **chosen)


def _plans(problem: Problem, device: Device, wanted: tuple[bool, ...]) -> list[Plan]:
    return [plan_forward(problem, device), plan_backward(problem, device, wanted)]  # type: ignore[arg-type]


def _cut(plan: Plan) -> list[Any]:
    """Return all that the order of a sum depends on."""
    free = {"WIDE", "STORE", "partials"}
    return [
        (
            *(launch.kernel, launch.num_warps, launch.programs // plan.problem.n),
            {k: v for k, v in launch.constants + launch.scalars if k not in free},
        )
        for launch in plan.launches
    ]


def _check_launches(plan: Plan) -> None:
    written: set[str] = set()
    for launch in plan.launches:
        fits = plan.problem.numel * plan.problem.itemsize > _MEMORY or launch.programs <= MAX_PROGRAMS
        assert fits and launch.programs >= 1, f"{launch.kernel}: {launch.programs} programs"
        assert all(isinstance(value, float) or 0 <= value < 2**63 for _, value in launch.scalars)
        named = {buffer for _, buffer in launch.tensors if buffer}
        assert named <= plan.buffers.keys()
        assert not written & {name for name, _ in launch.writes}, "two launches write one buffer"
        written |= {name for name, _ in launch.writes}
        constants = dict(launch.constants)
        blocks = [constants[k] for k in ("BLOCK_G", "BLOCK_D", "BLOCK_R", "BLOCK_P", "BLOCK_J", "V") if k in constants]
        # Triton's tensors are of powers of two, and of 2**20 elements at most.
        assert all(size & (size - 1) == 0 for size in blocks), launch
        if launch.kernel.startswith("finalize"):
            continue
        elements = math.prod(blocks) // (constants["V"] if plan.problem.layout == "channels_last" else 1)
        assert elements <= WHOLE_ELEMENTS, f"{launch.kernel}: {elements} elements a program"
        assert launch.num_warps in (1, 2, 4, 8, 16)
        room = launch.num_warps * 32 * BYTES_PER_THREAD
        assert launch.num_warps == 16 or elements * plan.problem.itemsize <= room, f"{launch.kernel} spills"


def _check_cover(plan: Plan, launch: Launch, rng: Random) -> None:
    """Check that programs stay in their buffers and write no byte twice; of few programs, every byte once."""
    if launch.kernel == "finalize_backward" and dict(launch.scalars)["chunks"] > _COUNTED:
        # A run for each chunk: too many to be listed.
        return
    every = launch.programs <= _COUNTED
    some = {0, launch.programs - 1, launch.programs // 2, *(rng.randrange(launch.programs) for _ in range(6))}
    written: dict[str, list[tuple[int, int]]] = {}
    for program in range(launch.programs) if every else sorted(some):
        accesses = footprint(plan, launch, program)
        # A row of pixels each, of a few channels: too many to be looked at one by one.
        if sum(rows for _, _, _, rows, _, _ in accesses) > 4096:
            every = False
            continue
        for name, first, row_bytes, rows, stride, write in accesses:
            size = plan.buffers[name].numel * (plan.problem.itemsize if name in ACTIVATIONS else 4)
            assert first >= 0 and row_bytes > 0, f"{launch.kernel}, program {program}: {name} from byte {first}"
            last = first + (rows - 1) * stride + row_bytes
            assert last <= size, f"{launch.kernel}, program {program}: {name} to byte {last} of {size}"
            if write:
                written.setdefault(name, []).extend((first + r * stride, row_bytes) for r in range(rows))
    for name, runs in written.items():
        end = total = 0
        for first, row_bytes in sorted(runs):
            assert first >= end, f"{launch.kernel} writes byte {first} of {name} twice"
            end, total = first + row_bytes, total + row_bytes
        if every:
            declared = dict(launch.writes)[name]
            assert total == declared, f"{launch.kernel} writes {total} bytes of {name}, and says {declared}"
            if name in ACTIVATIONS:
                assert total == plan.problem.numel * plan.problem.itemsize, f"{launch.kernel} leaves bytes of {name}"
