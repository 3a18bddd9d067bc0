from dataclasses import replace

import pytest

from mmgn.ops.triton.plan import Launch, Plan
from mmgn.ops.triton.problem import Problem
from mmgn.perf import static
from mmgn.perf.cache import Traffic
from mmgn.perf.devices import A100, H100
from mmgn.perf.model import Launched, Modelled
from mmgn.perf.sass import Code, Region
from mmgn.perf.shapes import SHAPES

#: What a good copy kernel compiles to: 8 KiB a program each way.
BODY = Region(instructions=100, loads=((128, 4),), stores=((128, 4),), in_flight=2048, any_in_flight=2048, calls=0)
CODE = Code(registers=32, shared=0, stack=0, spills=0, body=BODY, loops=())
ROOMY = 132 * 16 * 10


def launched(code=CODE, programs=ROOMY, gpu=H100):
    moved = 8192 * programs
    launch = Launch("copy", programs, (), (), (), 4, (("x", moved),), (("y", moved),))
    return Launched(launch, code, gpu, Traffic(moved, moved))


def row(**arguments):
    each = launched(**arguments)
    problem = Problem(n=1, c=1, s=4096 * each.launch.programs, groups=1)
    plan = Plan(problem, "whole", (each.launch,), {})
    return static.Row(static.cases()[0], Modelled(plan, each.gpu, (each,)), {})


def test_totals_are_sums_over_the_models_layers():
    shapes = [replace(SHAPES[0], layers=count) for count in (2, 3)]
    rows = [replace(row(), case=case, others={"eager": 1.0, "autocast": None}) for case in static.cases(shapes)]
    (seconds,) = {each.modelled.seconds for each in rows}
    lines = static.totals(rows)
    assert len(lines) == 4
    # Each layer there and back.
    assert lines[0] == (
        f"5 norm layers forward and backward, float16 contiguous: {10e3 * seconds:.2f} ms modelled; "
        f"eager {1 / seconds:.2f} times that"
    )
    assert sum(shape.layers for shape in SHAPES) == 69


def test_good_code_misses_nothing():
    assert static.misses(row()) == []


@pytest.mark.parametrize(
    ("code", "miss"),
    [
        (replace(CODE, stack=328), "copy: spills: 328 B of stack, 0 accesses"),
        (replace(CODE, spills=2), "copy: spills: 0 B of stack, 2 accesses"),
        (replace(CODE, body=replace(BODY, loads=((16, 32),))), "copy: accesses of 16 bits"),
        (replace(CODE, body=replace(BODY, stores=((64, 8),))), "copy: accesses of 64 bits"),
        (
            replace(CODE, registers=255, shared=256 * 1024),
            "copy: 255 registers and 262144 B of shared memory fit no SM",
        ),
        (replace(CODE, body=replace(BODY, in_flight=512)), "copy: 32.8 KB in flight on an SM, 33.0 needed"),
        (
            replace(CODE, body=replace(BODY, instructions=1200)),
            "hot loops: 300 instructions for 256 elements, 282 slots",
        ),
    ],
)
def test_each_requirement_is_told_with_its_figure(code, miss):
    # 300: a program's four warps take 4800 instructions for its 16 x 256 elements.
    assert miss in static.misses(row(code=code))


def test_a_last_wave_is_told_where_it_costs():
    """Three times Little's bytes in flight and 1.05 waves: the rest takes a third of a wave, of which it fills 0.05."""
    slow = replace(CODE, body=replace(BODY, in_flight=round(3 * H100.little_bytes / 64)))
    assert static.misses(row(code=slow, programs=round(132 * 16 * 1.05))) == [
        "copy: a last wave that costs 21% of 1.05 waves"
    ]


def test_what_is_tiny_owes_no_bytes_in_flight_and_no_slots_but_owes_good_code():
    bad = replace(CODE, spills=1, body=replace(BODY, in_flight=512, instructions=10**4))
    assert static.misses(row(code=bad, programs=531)) == ["copy: spills: 0 B of stack, 1 accesses"]
    assert len(static.misses(row(code=bad, programs=532))) == 3


def test_other_architectures_owe_good_code_alone():
    bad = replace(CODE, spills=1, body=replace(BODY, in_flight=512, instructions=10**4))
    assert static.misses(row(code=bad, gpu=A100)) == ["copy: spills: 0 B of stack, 1 accesses"]


def test_the_table_has_every_place_layout_dtype_and_direction():
    names = [case.name for case in static.cases()]
    assert len(names) == len(set(names)) == len(SHAPES) * 2 * 2 * 2
    assert "stem 2x64x400x672 float16 contiguous forward" in names
    assert "box head 1024x256x7x7 float32 channels_last backward" in names


@pytest.fixture(scope="module")
def small():
    return [replace(shape, layers=1) for shape in SHAPES if shape.name == "FPN P6"]


def test_the_table_is_printed_with_times_called_modelled(small, capsys):
    pytest.importorskip("triton")
    code = static.run(gpus=["a100"], shapes=small)
    text = capsys.readouterr().out
    assert code == 0
    assert "A100 SXM 80GB (sm_80): all times are modelled, none is measured." in text
    assert text.count("FPN P6") == 8
    assert "eager" in text and "autocast" in text and "inductor" in text
    assert text.count("1 norm layers forward and backward") == 4
    assert text.rstrip().endswith("Every row meets what it must.")


def test_plans_are_printed(small, capsys):
    assert static.run(plan_only=True, shapes=small) == 0
    text = capsys.readouterr().out
    assert text.count("passes") == 8
    assert "whole_forward" in text and "BLOCK_R=" in text
