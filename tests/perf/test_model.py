from dataclasses import replace

import pytest

from mmgn.ops.triton.plan import Launch, Plan, plan_backward
from mmgn.ops.triton.problem import Device, Problem
from mmgn.perf.cache import Traffic
from mmgn.perf.devices import H100
from mmgn.perf.model import Launched, Modelled
from mmgn.perf.sass import Code, Region

MIB = 2**20
#: 4 loads and 4 stores of 128 bits a thread, 4 warps: 8 KiB a program each way.
BODY = Region(instructions=100, loads=((128, 4),), stores=((128, 4),), in_flight=2048, any_in_flight=2048, calls=0)
CODE = Code(registers=32, shared=0, stack=0, spills=0, body=BODY, loops=())


def launched(programs, code=CODE, dram=None):
    """A copy of half-precision x to y: 8 KiB read and 8 KiB written by each program."""
    moved = programs * 8192
    launch = Launch("copy", programs, (), (), (), 4, (("x", moved),), (("y", moved),))
    return Launched(launch, code, H100, Traffic(read=moved, written=moved) if dram is None else dram)


def test_a_full_device_runs_at_the_bandwidth_of_the_data_sheet():
    """132 x 16 programs at once, ten waves of them: 173 MB each way."""
    full = launched(132 * 16 * 10)
    assert full.blocks == 16
    assert full.occupancy == 1
    assert full.waves == 10
    assert full.tail == 0
    assert full.in_flight == 16 * 4 * 2048
    assert not full.tiny
    assert full.seconds == pytest.approx(3e-6 + 2 * 132 * 160 * 8192 / 3.35e12)


def test_few_programs_have_few_bytes_in_flight_and_get_less_bandwidth():
    """One program on each SM has 8 KiB in flight of the 16.5 KB that Little's law asks: half the bandwidth."""
    few = launched(132)
    assert few.in_flight == 8192
    assert few.tiny
    assert few.seconds == pytest.approx(3e-6 + 2 * 132 * 8192 / 3.35e12 * H100.little_bytes / 8192)


def test_tiny_is_what_cannot_fill_the_device_twice_over():
    """2 x 3.35 TB/s x 0.65 us = 4.36 MB, of which one program loads 8 KiB."""
    assert launched(531).tiny
    assert not launched(532).tiny


@pytest.mark.parametrize(
    ("in_flight", "waves", "tail"),
    [
        # Little's bytes on a full SM: the last wave takes as long as a full one.
        (16.5e3, 1.25, 0.75 / 2),
        # Four times that: a quarter of the programs saturates DRAM and wastes nothing, a tenth takes a quarter.
        (66e3, 1.25, 0),
        (66e3, 1.1, 0.15 / 1.25),
        (66e3, 5.1, 0.15 / 5.25),
        # One wave, or full ones: there is no last wave that is shorter.
        (16.5e3, 0.6, 0),
        (16.5e3, 3, 0),
    ],
)
def test_last_wave_by_hand(in_flight, waves, tail):
    code = replace(CODE, body=replace(BODY, in_flight=in_flight / 64))
    assert launched(round(132 * 16 * waves), code).tail == pytest.approx(tail, abs=0.01)


def test_instructions_can_take_longer_than_memory():
    slow = launched(132 * 160, replace(CODE, body=replace(BODY, instructions=28000)))
    assert slow.instructions == 132 * 160 * 4 * 28000
    assert slow.seconds == pytest.approx(3e-6 + 160 * 28000 / 1.75e9)


def test_loops_run_as_often_as_the_bytes_ask_for():
    """Two loads and two stores of 512 bytes a warp each time round, of 16 KiB for four warps: twice round."""
    loop = Region(instructions=40, loads=((128, 2),), stores=((128, 2),), in_flight=1024, any_in_flight=1024, calls=0)
    assert launched(132 * 160, replace(CODE, loops=(loop,))).instructions == 132 * 160 * 4 * (100 + 40)


def test_what_stays_in_l2_is_free():
    assert launched(132 * 160, dram=Traffic()).seconds < 3e-6 + 2e-5


def test_width_is_128_only_if_those_accesses_can_have_moved_everything():
    assert launched(1000).width == 128
    half = replace(CODE, body=replace(BODY, loads=((16, 16), (128, 2))))
    assert not launched(1000, half).wide
    assert launched(1000, half).width == 16
    narrow = replace(CODE, loops=(replace(BODY, stores=((16, 32),)),))
    assert launched(1000, narrow).width == 16
    assert launched(1000, replace(CODE, loops=(BODY,))).width == 128


def test_the_sum_of_the_partials_is_a_launch_of_its_own():
    each = launched(1000)
    plain = Plan(Problem(1, 1, 4096, 1), "whole", (each.launch,), {})
    summing = replace(plain, partial_shape=(2, 1000, 64), partial_dims=(1,))
    moved = 4 * 2 * 1000 * 64 + 4 * 2 * 64
    before, after = Modelled(plain, H100, (each,)), Modelled(summing, H100, (each,))
    assert before.summing == 0
    assert after.seconds - before.seconds == pytest.approx(3e-6 + moved / 3.35e12)
    assert after.moved - before.moved == after.dram - before.dram == moved
    assert after.issue_slots == before.issue_slots


@pytest.mark.parametrize("s", [49, 2**16])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_a_plan_sums_all_its_partials_and_only_where_somebody_asks(s, layout):
    problem = Problem(2, 64, s, 8, layout=layout)
    for dw, db in ((True, True), (True, False), (False, True)):
        plan = plan_backward(problem, Device(), (True, dw, db, False))
        assert plan.summed == (4 * plan.buffers["partials"].numel, 4 * 2 * 64)
    assert plan_backward(problem, Device(), (True, False, False, False)).summed == (0, 0)
