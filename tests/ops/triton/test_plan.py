"""What every plan owes, whatever the shape: pure Python, over the shape table and far beyond it."""

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mmgn.ops.triton.plan import plan_backward, plan_forward
from mmgn.ops.triton.problem import Device, Problem
from mmgn.ops.triton.tiling import BYTES_PER_THREAD, VECTOR_BYTES, WHOLE_ELEMENTS
from mmgn.perf.shapes import SHAPES

H100 = Device()
# A grid's first dimension; more, no GPU launches.
MOST_PROGRAMS = 2**31 - 1
# Bytes of the largest tensor: the memory of a B300.
MEMORY = 288 * 10**9


@st.composite
def problems(draw):
    groups = draw(st.integers(1, 300))
    c, s = groups * draw(st.integers(1, 300)), draw(st.integers(1, 300) | st.integers(1, 2**20))
    return Problem(
        n=draw(st.integers(1, min(2**20, max(1, MEMORY // (4 * c * s))))),
        c=c,
        s=s,
        groups=groups,
        dtype=draw(st.sampled_from(["float16", "bfloat16", "float32"])),
        layout=draw(st.sampled_from(["contiguous", "channels_last"])),
        activation=draw(st.sampled_from(["none", "relu", "silu"])),
        residual=draw(st.booleans()),
        weight=draw(st.booleans()),
        bias=draw(st.booleans()),
    )


def plans(problem, device=H100):
    yield plan_forward(problem, device)
    for wanted in ((True, True, True, True), (True, False, False, False), (False, True, False, False)):
        yield plan_backward(problem, device, wanted)


def of_table(test):
    """Add the shape table's problems to the drawn ones."""
    for shape in SHAPES:
        for layout in ("contiguous", "channels_last"):
            test = example(problem=shape.problem("float16", layout))(test)
    return test


@of_table
@given(problem=problems())
def test_a_sample_is_cut_alike_in_every_batch_and_on_every_device(problem):
    """No constant that has a say in the order of a sum, no number of chunks, depends on N or on the device."""
    free = {"WIDE", "STORE", "partials"}

    def cuts(problem, device):
        return [
            [
                (
                    launch.kernel,
                    launch.num_warps,
                    launch.programs / problem.n,
                    {k: v for k, v in launch.constants + launch.scalars if k not in free},
                )
                for launch in plan.launches
            ]
            for plan in plans(problem, device)
        ]

    want = cuts(replace(problem, n=1), H100)
    assert cuts(problem, H100) == cuts(problem, Device(0)) == cuts(replace(problem, n=7), Device(2**40)) == want


@of_table
@given(problem=problems())
def test_a_program_holds_what_fits_in_its_registers(problem):
    """Of each tensor at most 64 bytes a thread, 16 float32 values of half-precision ones twice; more would spill."""
    for plan in plans(problem):
        for launch in plan.launches:
            constants = dict(launch.constants)
            blocks = [v for k, v in constants.items() if k in ("BLOCK_G", "BLOCK_D", "BLOCK_R", "BLOCK_P")]
            if launch.kernel.startswith("finalize"):
                continue
            elements = 1
            for size in blocks:
                elements *= size
                assert size & (size - 1) == 0, launch
            if launch.kernel.startswith("contiguous"):
                elements *= constants["V"]
            assert elements <= WHOLE_ELEMENTS, launch
            assert 1 <= launch.num_warps <= 16
            assert elements * problem.itemsize <= launch.num_warps * 32 * BYTES_PER_THREAD or launch.num_warps == 16


@of_table
@given(problem=problems())
def test_vectors_are_as_wide_as_the_shape_allows(problem):
    """128 bits wherever a group (contiguous) or the channels (channels_last) are a multiple of them."""
    full = VECTOR_BYTES // problem.itemsize
    for plan in plans(problem):
        for launch in plan.launches:
            v = dict(launch.constants).get("V")
            if v is None:
                continue
            assert problem.m % v == 0 if problem.layout == "contiguous" else problem.c % v == 0
            # A vector that is longer than a channel would hold three of them.
            if problem.layout == "contiguous" and problem.m % full == 0 and problem.s >= full:
                assert v == full, launch
            if problem.layout == "channels_last" and problem.d % full == 0:
                assert v == full, launch


@of_table
@given(problem=problems())
def test_every_launch_fits_a_grid_and_names_what_there_is(problem):
    for plan in plans(problem):
        assert plan.launches
        for launch in plan.launches:
            assert 1 <= launch.programs <= MOST_PROGRAMS
            named = {buffer for _, buffer in launch.tensors if buffer}
            assert named <= plan.buffers.keys()
            assert {name for name, _ in launch.reads + launch.writes} <= named
        written = [name for launch in plan.launches for name, _ in launch.writes]
        assert len(written) == len(set(written)), "two launches write one buffer"
        for i, launch in enumerate(plan.launches):
            later = {name for after in plan.launches[i:] for name, _ in after.writes}
            assert not {name for name, _ in launch.reads} & later, "read before it is written"


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_the_regimes_of_the_table(shape, layout):
    """RoI heads and the smallest map of the pyramid stay on chip; what is larger than 8192 elements a group cannot."""
    problem = shape.problem("float16", layout)
    regime = plan_forward(problem, H100).regime
    if problem.m > WHOLE_ELEMENTS:
        assert regime == "split"
    if shape.name in ("box head", "mask head"):
        assert regime == "whole"
