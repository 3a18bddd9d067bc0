"""A planned study run: its cells trained, and study.csv, summary.md and the figures written of what there is."""

import importlib
import platform
import shlex
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from mmgn.compat.environment import cpu_name
from mmgn.study.grid import Cell
from mmgn.study.launchers import train_through_torchrun
from mmgn.study.pool import cores, train_here
from mmgn.study.record import STATUSES, Outcome, row, write_csv
from mmgn.study.study import Study


@contextmanager
def alone(study: Study) -> Iterator[None]:
    """Have no other process at work in a study's folder.

    Raises:
        ValueError: one is.
    """
    out = study.options.out
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(f"another study.py is at work in {out}; wait for it, or give another --out") from None
    try:
        yield
    finally:
        lock.release()


def run(study: Study, jobs: int, train: Path) -> bool:
    """Train the cells that are not finished, as the launcher asks for; Slurm's are left to its jobs.

    Ctrl-C and a SIGTERM end the trainings at hand.

    Args:
        study: after its survey.
        jobs: trainings beside each other, without a launcher.
        train: tools/train.py.

    Returns:
        Whether it came to its end.

    Raises:
        ValueError: another process is at work in the study's folder.
    """
    pending, ended = study.pending(), partial(_ended, study)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with alone(study):
            if study.options.launcher == "none":
                train_here(study, pending, jobs, ended)
            elif study.options.launcher == "pytorch":
                train_through_torchrun(study, pending, train, ended)
    except KeyboardInterrupt:
        return False
    finally:
        signal.signal(signal.SIGTERM, before)
    return True


def _ended(study: Study, cell: Cell, outcome: Outcome) -> None:
    study.outcomes[cell] = outcome
    told = outcome.reason
    if outcome.metrics:
        told = ", ".join(f"{name} {value:.2f}" for name, value in outcome.metrics.items())
    seconds = f" ({outcome.seconds:.0f} s)" if outcome.seconds is not None else ""
    print(f"[{len(study.outcomes)}/{len(study.cells)}] {cell.id} {outcome.status}: {told}{seconds}", flush=True)


def write_results(study: Study) -> list[Path]:
    """Write study.csv, summary.md and the figures of what there is; return their paths."""
    # matplotlib takes a while, and a dry run has no use for it.
    from mmgn.study.figures import draw
    from mmgn.study.table import write_summary

    out = study.options.out
    missing = Outcome("missing", "not finished")
    rows = [row(cell, study.outcomes.get(cell, missing), study.facts[cell]) for cell in study.cells]
    for each in rows:
        # It is written where the cell's turn comes.
        if not (out / each["config"]).is_file():
            each["config"] = ""
    path = out / "study.csv"
    write_csv(path, [*study.head, *_where(study)], study.task.columns, rows)
    return [path, write_summary(path), *draw(path, out)]


def cell_table(study: Study) -> str:
    """Return a line for each cell, in the order in which they are trained."""
    lines: list[tuple[str, ...]] = [("cell", "lr", "iterations", "images", "start", "state")]
    for cell in study.in_order(study.cells):
        facts, outcome = study.facts[cell], study.outcomes.get(cell)
        state = f"{outcome.status} {outcome.reason}".strip() if outcome else "to train"
        lines.append((cell.id, *(str(facts[name]) for name in ("lr", "iterations", "images", "start")), state))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def verdict(study: Study) -> str:
    """Return how many cells stand how, and what to do about those that are not done."""
    counts = Counter(study.outcomes[cell].status if cell in study.outcomes else "missing" for cell in study.cells)
    lines = [", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])]
    failed = [cell for cell, outcome in study.outcomes.items() if outcome.status == "failed"]
    lines += [f"failed: {cell.id}: {study.outcomes[cell].reason}" for cell in failed]
    out = study.options.out
    others = {path.parent.name for path in out.glob("*/run.json")}.difference(cell.id for cell in study.cells)
    if others:
        lines.append(f"not asked for, so not in study.csv: {len(others)} other cells in {out}, first {min(others)}")
    if failed:
        lines.append(f"{out}/CELL/log.txt tells more")
    if study.options.launcher == "slurm" and (failed or counts["missing"]):
        submit = shlex.quote(f"{out}/submit.sh")
        lines.append(f"bash {submit} trains what is missing or has failed; the same command then gathers it")
    elif failed:
        lines.append("the same command trains the failed cells again and keeps the others")
    elif counts["missing"]:
        lines.append("the same command goes on with what is missing")
    return "\n".join(lines)


def _where(study: Study) -> list[str]:
    devices = sorted({outcome.device for outcome in study.outcomes.values() if outcome.device})
    modules = [importlib.import_module(name) for name in ("mmgn", "torch", "mmengine", study.task.package)]
    versions = [f"{module.__name__} {module.__version__}" for module in modules]
    return [
        f"machine: {'; '.join(devices) or cpu_name()}; {cores()} cores",
        f"versions: {', '.join(versions)}, Python {platform.python_version()}",
        f"date: {datetime.now().astimezone().isoformat(timespec='seconds')}",
    ]
