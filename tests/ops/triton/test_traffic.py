"""What plans declare and footprints tell, against what the interpreter loads and stores."""

import itertools
from collections import Counter, defaultdict
from dataclasses import replace

import pytest
import torch

pytest.importorskip("triton", minversion="3.3")

from mmgn.ops.triton import footprint as footprints
from mmgn.ops.triton import launcher
from mmgn.ops.triton.plan import plan_backward, plan_forward
from mmgn.ops.triton.problem import Device, Problem
from mmgn.perf.shapes import SHAPES
from mmgn.testing.interpreter import record_traffic

# N, C, spatial, G: odd and even S, S = 1, D = 1, G = 1, D no power of two, padded blocks of groups, D > 512.
CASES = (
    (2, 16, (7, 7), 4),
    (3, 12, (1, 1), 4),
    (2, 6, (5, 3), 6),
    (2, 24, (3, 3), 1),
    (1, 24, (9, 7), 2),
    (1, 48, (5, 5), 1),
    (2, 16, (4, 8), 8),
    (1, 20, (2, 3, 5), 10),
    (1, 16, (13, 21), 2),
    (1, 12, (33, 35), 4),
    (1, 600, (3, 1), 1),
    (1, 4, (50, 84), 1),
)
# dx, dweight, dbias, dresidual.
WANTED = ((True, True, True, True), (True, False, False, False), (False, True, False, True), (True, False, True, False))
LAYOUTS = ("contiguous", "channels_last")
DTYPES = {name: getattr(torch, name) for name in ("float32", "float16", "bfloat16")}


def problem_of(x, groups, activation, residual, affine, param_dtype):
    return Problem(
        n=x.shape[0],
        c=x.shape[1],
        s=x.shape[2:].numel(),
        groups=groups,
        dtype=str(x.dtype).removeprefix("torch."),
        param_dtype=param_dtype if affine else "float32",
        layout=launcher.memory_layout(x),
        activation=activation,
        residual=residual,
        weight=affine,
        bias=affine,
    )


def merged(runs):
    """Return runs of bytes, (first, end), in ascending order and no two of them adjacent."""
    out = []
    for first, end in sorted(runs):
        if out and first <= out[-1][1]:
            out[-1][1] = max(end, out[-1][1])
        else:
            out.append([first, end])
    return out


def steps(accesses):
    """Return (buffer, is it a write, runs of bytes) in order, from (buffer, is it a write, first byte, end)."""
    by_step = itertools.groupby(accesses, key=lambda access: access[:2])
    return [(*key, merged(access[2:] for access in of_key)) for key, of_key in by_step]


def assert_as_declared(plan, launches):
    assert len(launches) == len(plan.launches)
    for launch, recorded in zip(plan.launches, launches, strict=True):
        assert launch.kernel.endswith(recorded.kernel)
        assert recorded.grid == (launch.programs, 1, 1)
        assert launch.programs <= 64, "too slow for the interpreter"
        buffers = dict(launch.tensors)
        assert {buffers[k]: v for k, v in recorded.loaded.items()} == dict(launch.reads), launch
        assert {buffers[k]: v for k, v in recorded.stored.items()} == dict(launch.writes), launch
        recorded.assert_no_race()
        touched = defaultdict(list)
        for access in recorded.accesses:
            buffer = buffers[access.argument]
            if buffer in (*footprints.ACTIVATIONS, "partials"):
                end = access.first_byte + access.num_bytes
                touched[access.program[0]].append((buffer, access.is_write, access.first_byte, end))
        for program in range(launch.programs):
            foretold = (
                (buffer, is_write, start, start + row_bytes)
                for buffer, first, row_bytes, rows, stride, is_write in footprints.footprint(plan, launch, program)
                for start in range(first, first + rows * stride, stride)
            )
            assert steps(touched[program]) == steps(foretold), (launch, program)


@pytest.mark.skipif(torch.cuda.is_available(), reason="sees interpreted kernels only; on a GPU they are compiled")
@pytest.mark.pairwise(
    "regime",
    case=[(*case, layout) for case in CASES for layout in LAYOUTS],
    dtypes=(("float32", "float32"), ("float16", "float32"), ("bfloat16", "bfloat16")),
    activation=("none", "relu", "silu"),
    residual=(False, True),
    affine=(True, False),
    wanted=WANTED,
    regime=("as planned", "streamed", "streamed in small tiles"),
)
def test_launches_move_what_they_declare(case, dtypes, activation, residual, affine, wanted, regime):
    n, c, spatial, groups, layout = case
    dtype, param_dtype = (DTYPES[name] for name in dtypes)

    def draw():
        t = torch.randn(n, *spatial, c, dtype=dtype).movedim(-1, 1)
        return t if layout == "channels_last" else t.contiguous()

    x, dy = draw(), draw()
    added = draw() if residual else None
    weight, bias = (torch.randn(c, dtype=param_dtype) if affine else None for _ in range(2))
    problem = problem_of(x, groups, activation, residual, affine, dtypes[1])
    with record_traffic() as launches:
        y, mean, rstd = launcher.forward(x, weight, bias, added, groups, 1e-5, activation)
    assert_as_declared(plan_forward(problem, launcher.device_limits(None)), launches)
    saved = {"y": y, "residual": added, None: None}[problem.saved]
    with record_traffic() as launches:
        launcher.backward(dy, x, weight, bias, saved, mean, rstd, activation, residual, wanted)
    assert_as_declared(plan_backward(problem, launcher.device_limits(None), wanted), launches)


def tensor_passes(plan):
    """Count the launches' passes over tensors of x's size, and hold what each moves against the tensor's bytes.

    A row that two channels share is loaded by both, within one program or in two that run at much the same time: L1 or
    L2 has it the second time. So a pass may load a row more for each channel, where rows are not parts of channels.
    """
    p, count = plan.problem, 0
    size = p.numel * p.itemsize
    for launch in plan.launches:
        constants = dict(launch.constants)
        shared = 0 if constants.get("EVEN", True) else p.n * p.c * constants["V"] * p.itemsize
        loads = [moved for name, moved in launch.reads if name in footprints.ACTIVATIONS]
        stores = [moved for name, moved in launch.writes if name in footprints.ACTIVATIONS]
        assert all(size <= moved <= size + shared for moved in loads), launch
        assert all(moved == size for moved in stores), launch
        count += len(loads) + len(stores)
    return count


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_passes_over_the_shape_table(shape, layout):
    for dtype, activation, residual in itertools.product(DTYPES, ("none", "relu", "silu"), (False, True)):
        problem = replace(shape.problem(dtype, layout), activation=activation, residual=residual)
        plan = plan_forward(problem, Device())
        assert tensor_passes(plan) == {"whole": 2, "split": 3}[plan.regime] + residual
        undo = residual and activation != "none"
        for wanted in itertools.product((False, True), repeat=4):
            plan = plan_backward(problem, Device(), wanted)
            limit = {"whole": 3, "split": 5}[plan.regime] + 2 * undo
            assert tensor_passes(plan) == limit if all(wanted) else tensor_passes(plan) <= limit


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [s for s in SHAPES if s.problem().numel < 5e6], ids=lambda shape: shape.name)
def test_footprints_add_up_to_the_tensors(shape, layout):
    problem = shape.problem("float16", layout)
    for plan in (plan_forward(problem, Device()), plan_backward(problem, Device())):
        for launch in plan.launches:
            total = Counter()
            for program in range(launch.programs):
                for buffer, _, row_bytes, rows, _, is_write in footprints.footprint(plan, launch, program):
                    total[buffer, is_write] += row_bytes * rows
            sizes = {name: buffer.numel * (4 if name == "partials" else 2) for name, buffer in plan.buffers.items()}
            for name, moved in launch.reads:
                # A row that two of a program's own channels share is there once.
                assert not total[name, False] or sizes[name] <= total[name, False] <= moved, (launch, name)
            assert all(not total[name, True] or total[name, True] == moved for name, moved in launch.writes), launch
