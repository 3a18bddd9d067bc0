"""What a cell has left: whether it is finished, its figures, or why it failed; and study.csv of all of them."""

import csv
import io
import json
import math
import re
import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmgn.engine.files import write_whole
from mmgn.study.grid import Cell
from mmgn.study.tasks import Task

#: What a cell's process prints, in its folder.
LOG = "log.txt"
#: A line in the log before each try of a cell.
STARTS = "=== training starts"
#: What a cell's job has ended with, in its folder; not there while it runs, nor where Slurm has ended it.
EXIT_STATUS = "exit_status"
COLUMNS = (
    "task", "data", "norm", "num_groups", "channels_per_group", "batch_size", "processes", "total_batch", "lr",
    "images", "iterations", "seed", "start", "status", "reason",
)  # fmt: skip
STATUSES = ("done", "failed", "skipped", "missing")
_ERROR = re.compile(r"(train\.py|[\w.]*(Error|Exception)): ")
# mmdet's CheckInvalidLossHook raises an assertion without a message, and logs this; FiniteLossHook's error has all that
# is different from seed to seed.
_INVALID = re.compile(r"loss become infinite or NaN|: the loss of iteration \d+ is not finite")


@dataclass(frozen=True)
class Outcome:
    """How a cell stands.

    Attributes:
        status: of :data:`STATUSES`.
        reason: why, unless done.
        metrics: of study.csv, in percent.
        seconds: of training, validation included.
        iterations: that were trained.
        device: where.
    """

    status: str
    reason: str = ""
    metrics: Mapping[str, float] | None = None
    seconds: float | None = None
    iterations: int | None = None
    device: str | None = None


def read_outcome(work_dir: Path, task: Task) -> Outcome | None:
    """Read the outcome of a cell whose training and validation have ended; None of any other."""
    try:
        record: dict[str, Any] = json.loads((work_dir / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    train, evaluation = record.get("train") or {}, record.get("evaluation") or {}
    if not train.get("ended") or evaluation.get("iter") != train.get("iter"):
        return None
    facts = {"seconds": train["seconds"], "iterations": train["iter"], "device": train["device"]}
    # JSON has null for NaN.
    figures = {name: math.nan if value is None else value for name, value in evaluation["metrics"].items()}
    try:
        metrics = task.metrics(figures)
    except KeyError as error:
        found = ", ".join(figures) or "none"
        return Outcome("failed", f"the validation gave no {error.args[0]}; its figures: {found}", **facts)
    wrong = [name for name, value in metrics.items() if not math.isfinite(value)]
    if wrong:
        return Outcome("failed", f"{wrong[0]} is not a finite number", **facts)
    return Outcome("done", "", metrics, **facts)


def outcome_of(work_dir: Path, task: Task, exitcode: int) -> Outcome:
    """Read the outcome of a cell whose process has ended; of one that failed, the last error in its log tells why."""
    outcome = read_outcome(work_dir, task)
    if exitcode == 0 and outcome:
        return outcome
    if exitcode < 0:
        name = signal.Signals(-exitcode).name
        hint = ", as the kernel does where memory ends (see dmesg)" if name == "SIGKILL" else ""
        return Outcome("failed", f"ended by {name}{hint}")
    try:
        text = (work_dir / LOG).read_text(encoding="utf-8", errors="replace").rpartition(STARTS)[2]
    except OSError:
        text = ""
    if _INVALID.search(text):
        return Outcome("failed", "the loss became infinite or NaN")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # torchrun has more to say after it.
    errors = [line for line in lines if _ERROR.match(line)]
    return Outcome("failed", (errors or lines or [f"exit status {exitcode}, nothing printed"])[-1])


def job_outcome(work_dir: Path, task: Task) -> Outcome | None:
    """Read the outcome of a cell that a job trains; None where it is to run, or to go on, as at its time limit."""
    outcome = read_outcome(work_dir, task)
    try:
        status = int((work_dir / EXIT_STATUS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return outcome
    signum = status - 128
    if outcome or signum == signal.SIGTERM:
        return outcome
    return outcome_of(work_dir, task, -signum if signum in set(signal.Signals) else status)


def csv_text(head: Iterable[str], columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Return study.csv: the head's lines, each after ``# ``, then a line for each cell."""
    text = io.StringIO()
    text.writelines(f"# {line}\n" for line in head)
    writer = csv.DictWriter(text, [*COLUMNS, *columns, "train_seconds", "config"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_csv(path: Path, head: Iterable[str], columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write study.csv, whole or not at all."""
    write_whole(path, csv_text(head, columns, rows).encode())


def row(cell: Cell, outcome: Outcome, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return a cell's line of study.csv.

    Args:
        cell: the cell.
        outcome: how it stands.
        facts: the columns that are neither the cell's nor the outcome's.
    """
    own = {name: getattr(cell, name) for name in ("data", "norm", "batch_size", "seed")}
    groups = {name: getattr(cell, name) or "" for name in ("num_groups", "channels_per_group")}
    metrics = {name: f"{value:.4f}" for name, value in (outcome.metrics or {}).items()}
    seconds = "" if outcome.seconds is None else f"{outcome.seconds:.1f}"
    trained = {}
    # A sampler of the config's own may make other batches than planned.
    if outcome.iterations is not None:
        trained = {"iterations": outcome.iterations, "images": outcome.iterations * facts["total_batch"]}
    return {
        **facts, **own, **groups, **trained, **metrics,
        "status": outcome.status, "reason": outcome.reason, "train_seconds": seconds,
    }  # fmt: skip
