"""A study's cells on several GPUs: through torchrun on this machine, or as jobs of a Slurm cluster."""

import os
import shlex
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

from mmgn.study.grid import Cell
from mmgn.study.record import EXIT_STATUS, LOG, STARTS, Outcome, job_outcome, outcome_of
from mmgn.study.study import Study

_JOB = """\
#!/usr/bin/env bash
#SBATCH --ntasks={tasks}
#SBATCH --ntasks-per-node={per_node}
#SBATCH --gres=gpu:{per_node}
#SBATCH --cpus-per-task={cpus}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120
{more}set -euo pipefail

unset MMDET_DATASETS
rm -f {status}
echo {starts}
code=0
srun --kill-on-bad-exit=1 --ntasks={tasks} --cpus-per-task={cpus} \\
  {command} || code=$?
echo "$code" > {status}
exit "$code"
"""
# Of two jobs of a name the second waits: submitted twice, a cell is not trained twice at a time.
_SUBMIT = """\
#!/usr/bin/env bash
# Submits the cells that were not finished when tools/study.py wrote this; run it again to gather their results.
set -euo pipefail

"""


def train_through_torchrun(
    study: Study, cells: list[Cell], train: Path, ended: Callable[[Cell, Outcome], None]
) -> None:
    """Train cells one after the other, each in ``--gpus`` processes of this machine.

    Args:
        study: the study.
        cells: to train, in this order: those that others wait for are first.
        train: tools/train.py.
        ended: called with each cell's outcome.
    """
    # The learning rate is that of --gpus processes.
    machines = ("NNODES", "NODE_RANK", "PET_NNODES", "PET_NODE_RANK")
    environ = {name: value for name, value in os.environ.items() if name not in machines}
    for cell in cells:
        blocked = study.blocked(cell)
        if blocked:
            ended(cell, blocked)
            continue
        study.record_settings(cell)
        command = [sys.executable, "-m", "mmgn.engine.torchrun", str(study.options.processes)]
        with (study.folder(cell) / LOG).open("ab") as log:
            log.write(f"{STARTS}\n".encode())
            log.flush()
            process = subprocess.Popen(
                [*command, *_train(study, cell, train)], stdout=log, stderr=log, env=environ, start_new_session=True
            )
        try:
            exitcode = process.wait()
        except BaseException:
            # torchrun ends its ranks, which leave a checkpoint.
            process.terminate()
            process.wait()
            raise
        ended(cell, outcome_of(study.folder(cell), study.task, exitcode))


def write_jobs(study: Study, cells: list[Cell], train: Path, partition: str | None) -> Path:
    """Write a batch script for each cell, and ``submit.sh`` that submits them all.

    As ``tools/slurm_train.sh`` they heed GPUS_PER_NODE (8), CPUS_PER_TASK (5) and SRUN_ARGS, here and now.

    Args:
        study: the study.
        cells: those to train.
        train: tools/train.py.
        partition: Slurm's; None for its default.

    Returns:
        The path of ``submit.sh``.
    """
    out, processes = study.options.out, study.options.processes
    per_node = min(processes, int(os.environ.get("GPUS_PER_NODE") or 8))
    more = [f"#SBATCH --partition={partition}\n"] if partition else []
    if os.environ.get("SRUN_ARGS"):
        more.append(f"#SBATCH {os.environ['SRUN_ARGS']}\n")
    lines: list[str] = []
    jobs: dict[Cell, str] = {}
    for number, cell in enumerate(cells):
        study.record_settings(cell)
        folder = study.folder(cell)
        text = _JOB.format(
            status=shlex.quote(str(folder / EXIT_STATUS)),
            starts=shlex.quote(STARTS),
            tasks=processes,
            per_node=per_node,
            cpus=os.environ.get("CPUS_PER_TASK") or 5,
            more="".join(more),
            command=shlex.join([sys.executable, "-u", *_train(study, cell, train)]),
        )
        (folder / "job.sh").write_text(text, encoding="utf-8")
        after = "singleton"
        model = study.waits_for(cell)
        if model in jobs:
            after = f'"singleton,afterok:${jobs[model]}"'
        jobs[cell] = f"job_{number}"
        # The checksum tells studies in folders of the same name apart.
        name = f"{out.name}/{cell.id}/{zlib.crc32(os.fsencode(out)):08x}"
        # sbatch puts the job's number, and more, in the place of a single %.
        log = str(folder / LOG).replace("%", "%%")
        words = shlex.join([f"--job-name={name}", f"--output={log}", str(folder / "job.sh")])
        lines.append(
            f"{jobs[cell]}=$(sbatch --parsable --kill-on-invalid-dep=yes --dependency={after} {words})\n"
            f'echo "${jobs[cell]}" {shlex.quote(cell.id)}\n'
        )
    submit = out / "submit.sh"
    submit.write_text(_SUBMIT + "".join(lines), encoding="utf-8")
    submit.chmod(0o755)
    return submit


def gather(study: Study, cells: list[Cell]) -> None:
    """Add the outcomes of cells whose jobs have failed to a study's.

    Args:
        study: the study.
        cells: that are not done; those that others wait for are first.
    """
    for cell in cells:
        outcome = study.blocked(cell) or job_outcome(study.folder(cell), study.task)
        if outcome:
            study.outcomes[cell] = outcome


def _train(study: Study, cell: Cell, train: Path) -> list[str]:
    """Return the command of a rank; a cell that was interrupted goes on from its last checkpoint."""
    folder, launcher = study.folder(cell), study.options.launcher
    return [str(train), str(study.config(cell)), f"--work-dir={folder}", f"--launcher={launcher}", "--resume"]
