"""The kernels' code, judged without a GPU: what each launch of the shape table compiles to, and what the model says.

A requirement that a tensor is too small for is waived by one rule: a launch that loads less than twice what the device
must have in flight to saturate its DRAM is *tiny*, and owes neither bytes in flight nor a cheap last wave; a plan of
tiny launches owes no issue slots.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mmgn.ops.triton import plan as plans
from mmgn.ops.triton.plan import Plan
from mmgn.perf import baselines
from mmgn.perf.devices import GPU, GPUS
from mmgn.perf.model import Launched, Modelled, model
from mmgn.perf.offline import Compilation, compile_all
from mmgn.perf.shapes import SHAPES, Shape

DTYPES = ("float16", "float32")
LAYOUTS = ("contiguous", "channels_last")
#: The architecture on which more than the code is judged; for others it is reported.
JUDGED_ARCH = 90
#: Bytes in flight, in units of what Little's law asks.
IN_FLIGHT = 2.0
LAST_WAVE = 0.2


@dataclass(frozen=True)
class Case:
    """A plan of the shape table."""

    shape: Shape
    dtype: str
    layout: str
    backward: bool

    @property
    def name(self) -> str:
        """How the table calls it."""
        size = "x".join(map(str, self.shape.size))
        return f"{self.shape.name} {size} {self.dtype} {self.layout} {'backward' if self.backward else 'forward'}"

    def plan(self, gpu: GPU) -> Plan:
        """Return its plan on a GPU."""
        make = plans.plan_backward if self.backward else plans.plan_forward
        return make(self.shape.problem(self.dtype, self.layout), gpu.plan_device())


@dataclass(frozen=True)
class Row:
    """A plan of the shape table on a GPU, and the modelled seconds of what others launch for it."""

    case: Case
    modelled: Modelled
    others: dict[str, float | None]


def cases(
    shapes: Iterable[Shape] = SHAPES, dtypes: Iterable[str] = DTYPES, layouts: Iterable[str] = LAYOUTS
) -> list[Case]:
    """Return the shape table's plans: every layout, dtype and direction."""
    return [Case(*c) for c in itertools.product(shapes, dtypes, layouts, (False, True))]


def compilations(todo: Iterable[Case], gpu: GPU) -> list[Compilation]:
    """Return the distinct compilations of plans."""
    all_plans = [case.plan(gpu) for case in todo]
    return list(dict.fromkeys(Compilation.of(p, launch, gpu.arch) for p in all_plans for launch in p.launches))


def judge(todo: Sequence[Case], gpu: GPU, price: bool = True) -> list[Row]:
    """Compile what the plans launch, and model it; ``price`` for the others' times as well."""
    codes = compile_all(compilations(todo, gpu))
    rows = []
    for case in todo:
        plan = case.plan(gpu)
        code = [codes[Compilation.of(plan, launch, gpu.arch)] for launch in plan.launches]
        others = baselines.price(plan.problem, gpu, case.backward) if price else {}
        rows.append(Row(case, model(plan, gpu, code), others))
    return rows


def launch_misses(launched: Launched) -> list[str]:
    """Return what a launch fails of what it must meet."""
    code, gpu = launched.code, launched.gpu
    found = []
    if code.stack or code.spills:
        found.append(f"spills: {code.stack} B of stack, {code.spills} accesses")
    if not launched.wide:
        found.append(f"accesses of {launched.width} bits")
    if not launched.blocks:
        found.append(f"{code.registers} registers and {code.shared} B of shared memory fit no SM")
    if gpu.arch != JUDGED_ARCH or launched.tiny or not launched.blocks:
        return found
    if launched.in_flight < IN_FLIGHT * gpu.little_bytes:
        need = IN_FLIGHT * gpu.little_bytes
        found.append(f"{launched.in_flight / 1e3:.1f} KB in flight on an SM, {need / 1e3:.1f} needed")
    if launched.tail >= LAST_WAVE:
        found.append(f"a last wave that costs {launched.tail:.0%} of {launched.waves:.2f} waves")
    return found


def misses(row: Row) -> list[str]:
    """Return what a row fails of what it must meet, each with the kernel and the figure."""
    modelled = row.modelled
    found = [f"{each.launch.kernel}: {miss}" for each in modelled.launches for miss in launch_misses(each)]
    judged = modelled.gpu.arch == JUDGED_ARCH and not all(each.tiny for each in modelled.launches)
    if judged and modelled.instructions > modelled.issue_slots:
        slots = f"{modelled.instructions:.0f} instructions for 256 elements, {modelled.issue_slots:.0f} slots"
        found.append(f"hot loops: {slots}")
    return found


COLUMNS = (
    f"  {'kernel':24} {'programs':>8} {'warps':>5} {'regs':>4} {'shared':>6} {'bits':>4} {'occup.':>6} "
    f"{'in flight':>9} {'waves':>6} {'last':>5} {'MB':>7} {'DRAM MB':>7} {'us':>7}"
)


def _line(each: Launched) -> str:
    launch = each.launch
    return (
        f"  {launch.kernel:24} {launch.programs:8} {launch.num_warps:5} {each.code.registers:4} {each.code.shared:6} "
        f"{each.width:4} {each.occupancy:6.0%} {each.in_flight / each.gpu.little_bytes:8.1f}x {each.waves:6.2f} "
        f"{each.tail:5.0%} {each.moved / 1e6:7.1f} {each.dram / 1e6:7.1f} {each.seconds * 1e6:7.1f}"
        f"{'  tiny' if each.tiny else ''}"
    )


def _summing(modelled: Modelled) -> str:
    moved = sum(modelled.plan.summed) / 1e6
    return f"  {'torch.sum of partials':87} {moved:7.1f} {moved:7.1f} {modelled.summing * 1e6:7.1f}"


def table(rows: Sequence[Row]) -> str:
    """Return the rows of one GPU as text."""
    gpu = rows[0].modelled.gpu
    lines = [
        f"{gpu.name} (sm_{gpu.arch}): all times are modelled, none is measured.",
        f"In flight: bytes of an SM's loads, in units of what Little's law asks ({gpu.little_bytes / 1e3:.1f} KB).",
        f"Tiny: loads less than {2 * gpu.little_bytes * gpu.sm_count / 1e6:.1f} MB, too little to fill the device.",
        COLUMNS,
    ]
    for row in rows:
        modelled = row.modelled
        others = ", ".join(f"{k} {v * 1e6:.1f}" for k, v in row.others.items() if v is not None)
        lines += [
            f"{row.case.name}: {modelled.plan.regime}, {modelled.seconds * 1e6:.1f} us ({others}); "
            f"{modelled.instructions:.0f} of {modelled.issue_slots:.0f} issue slots; "
            f"{modelled.moved / 1e6:.1f} MB, {modelled.dram / 1e6:.1f} after L2",
            *map(_line, modelled.launches),
            *([_summing(modelled)] if modelled.summing else []),
            *(f"  MISSED {miss}" for miss in misses(row)),
        ]
    return "\n".join([*lines, *totals(rows)])


def totals(rows: Sequence[Row]) -> list[str]:
    """Return for each dtype and layout the modelled time of all the model's norms, and what others take of it."""
    lines = []
    rows = [row for row in rows if row.case.shape.layers]
    for dtype, layout in dict.fromkeys((row.case.dtype, row.case.layout) for row in rows):
        of_kind = [row for row in rows if (row.case.dtype, row.case.layout) == (dtype, layout)]
        ours = sum(row.case.shape.layers * row.modelled.seconds for row in of_kind)
        ratios = []
        for name in of_kind[0].others:
            times = [row.others[name] for row in of_kind]
            if None not in times:
                theirs = sum(row.case.shape.layers * t for row, t in zip(of_kind, times, strict=True) if t is not None)
                ratios.append(f"{name} {theirs / ours:.2f} times that")
        layers = sum(row.case.shape.layers for row in of_kind if row.case.backward)
        what = f"{layers} norm layers forward and backward, {dtype} {layout}"
        lines.append(f"{what}: {ours * 1e3:.2f} ms modelled; {', '.join(ratios)}")
    return lines


def plan_table(todo: Iterable[Case], gpu: GPU) -> str:
    """Return launch plans as text."""
    lines = []
    for case in todo:
        plan = case.plan(gpu)
        lines.append(f"{case.name}: {plan.regime}, {plan.passes():.2f} passes")
        for launch in plan.launches:
            moved = sum(b for _, b in launch.reads + launch.writes) / 1e6
            constants = " ".join(f"{k}={v}" for k, v in launch.constants)
            size = f"{launch.programs:8} programs {launch.num_warps:3} warps {moved:8.1f} MB"
            lines.append(f"  {launch.kernel:24} {size}  {constants}")
    return "\n".join(lines)


def run(
    plan_only: bool = False, gpus: Sequence[str] = ("h100", "a100", "b200"), shapes: Iterable[Shape] = SHAPES
) -> int:
    """Print the table of each GPU, or the plans alone; return 1 where a row misses what it must meet."""
    todo = cases(shapes)
    if plan_only:
        print(plan_table(todo, GPUS[gpus[0]]))
        return 0
    failed = 0
    for name in gpus:
        rows = judge(todo, GPUS[name])
        failed += sum(bool(misses(row)) for row in rows)
        print(table(rows), end="\n\n")
    print(f"{failed} rows miss what they must meet." if failed else "Every row meets what it must.")
    return int(failed > 0)
