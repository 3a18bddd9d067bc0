"""The code of the shape table's kernels, compiled for three architectures without a GPU.

In the ordinary run at most 150: every kernel of the table in float16 for sm_90, and of each kernel the variant that is
given the most tensors, in float16 for sm_80 and in float32 for sm_100. ``-m exhaustive`` compiles all, in three dtypes
for all three.
"""

import pytest

pytest.importorskip("triton", minversion="3.3")

from mmgn.ops.triton.tiling import REGISTERS, SHARED_BYTES
from mmgn.perf import static
from mmgn.perf.cache import Traffic
from mmgn.perf.devices import A100, B200, H100
from mmgn.perf.model import Launched
from mmgn.perf.offline import Compilation, compile_all

GPUS = (A100, H100, B200)
DTYPES = ("float16", "bfloat16", "float32")
LIMIT = 150


def launches(gpu, dtypes):
    """Return compilation -> (name, launch) of the table."""
    found = {}
    for case in static.cases(dtypes=dtypes):
        plan = case.plan(gpu)
        for launch in plan.launches:
            found.setdefault(Compilation.of(plan, launch, gpu.arch), (f"{case.name} {launch.kernel}", launch))
    return found


def fullest(found):
    """Return of each kernel the variant that is given the most tensors."""
    best = {}
    for compilation in found:
        present = sum(dtype is not None for _, dtype in compilation.tensors)
        if present > best.get(compilation.kernel, (0, None))[0]:
            best[compilation.kernel] = present, compilation
    return {compilation: found[compilation] for _, compilation in best.values()}


def ordinary():
    chosen = launches(H100, ["float16"])
    for gpu, dtype in ((A100, "float16"), (B200, "float32")):
        chosen |= fullest(launches(gpu, [dtype]))
    assert len(chosen) <= LIMIT
    return chosen


def everything():
    return {k: v for gpu in GPUS for k, v in launches(gpu, DTYPES).items()}


@pytest.fixture(scope="module", params=["ordinary", pytest.param("all", marks=pytest.mark.exhaustive)])
def extent(request):
    if request.param == "all" and "exhaustive" not in request.config.option.markexpr:
        pytest.skip("-m exhaustive compiles every kernel for every architecture")
    return request.param


@pytest.fixture(scope="module")
def compiled(extent):
    """Name and launch on a GPU of every compilation."""
    chosen = ordinary() if extent == "ordinary" else everything()
    gpus = {gpu.arch: gpu for gpu in GPUS}
    codes = compile_all(chosen)
    return [
        (f"{name}, sm_{key.arch}", Launched(launch, codes[key], gpus[key.arch], Traffic()))
        for key, (name, launch) in chosen.items()
    ]


def test_nothing_spills(compiled):
    assert [name for name, each in compiled if each.code.stack or each.code.spills] == []


def test_activations_move_in_128_bit_accesses(compiled):
    assert {name: each.width for name, each in compiled if not each.wide} == {}


def test_registers_and_shared_memory_are_what_the_plan_counted_on(compiled):
    taken = {name: (each.code.registers, each.code.shared) for name, each in compiled}
    assert {k: v for k, v in taken.items() if v[0] > REGISTERS or v[1] > SHARED_BYTES} == {}
    assert min(each.blocks * each.launch.num_warps for _, each in compiled) >= 16


@pytest.fixture(scope="module")
def rows(extent, compiled):
    """The table on an H100; what it compiles lies in Triton's cache by now."""
    dtypes = ["float16"] if extent == "ordinary" else DTYPES
    return static.judge(static.cases(dtypes=dtypes), H100, price=False)


def test_rows_meet_what_sm_90_asks(rows):
    """Bytes in flight, last waves and issue slots, but for what is too small to fill the device."""
    missed = [f"{row.case.name}: {miss}" for row in rows for miss in static.misses(row)]
    assert not missed, "\n".join(missed)


def test_most_of_the_table_is_large_enough_to_be_judged(rows):
    judged = [row for row in rows if not all(each.tiny for each in row.modelled.launches)]
    assert len(judged) > len(rows) * 2 / 3


@pytest.mark.parametrize(("direction", "limit"), [("forward", 2), ("backward", 3)])
def test_simulated_traffic_is_near_the_limit_where_the_tensor_fits_in_l2(rows, direction, limit):
    """With a residual one more read and, backward, one more write and the reads of the mask."""
    for row in rows:
        problem = row.modelled.plan.problem
        if row.case.backward != (direction == "backward") or problem.residual:
            continue
        tensor = problem.numel * problem.itemsize
        if 2 * tensor < H100.l2_bytes:
            assert row.modelled.dram < 1.06 * limit * tensor, row.case.name
