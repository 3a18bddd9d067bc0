"""A study as planned: its cells, what each needs, and how each stands."""

import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from mmgn.engine.files import write_whole
from mmgn.study.cell import write_config
from mmgn.study.grid import Cell, pretraining
from mmgn.study.record import Outcome, read_outcome
from mmgn.study.tasks import TASKS, Task

#: A cell's whole config, a setting a line, in its folder: what it was trained with.
SETTINGS = "settings.txt"
#: Settings that go with a launcher and a machine, and change no figure.
_NO_FIGURE = re.compile(r"cfg\.(default_hooks\.checkpoint\.|\w+_dataloader\.(num_workers|persistent_workers) )")


@dataclass(frozen=True)
class Options:
    """The command line of tools/study.py; None stands for the task's default.

    Attributes:
        task: of :data:`mmgn.study.tasks.TASKS`.
        out: folder of the study.
        data: 'embedded' for all of the task's, the name of one of them, or a folder.
        norms: of :data:`mmgn.study.tasks.NORMS`.
        batch_sizes: per process.
        groups: group numbers of the group table.
        channels_per_group: the table's other half.
        seeds: how many.
        epochs: in the place of the base config's budget.
        config: in the place of the task's base config.
        quick: whether the defaults are those of ``--quick``.
        launcher: none, pytorch or slurm.
        processes: of one training.
    """

    task: str
    out: Path
    data: str = "embedded"
    norms: tuple[str, ...] | None = None
    batch_sizes: tuple[int, ...] | None = None
    groups: tuple[int, ...] | None = None
    channels_per_group: tuple[int, ...] | None = None
    seeds: int | None = None
    epochs: int | None = None
    config: str | None = None
    quick: bool = False
    launcher: str = "none"
    processes: int = 1


@dataclass
class Study:
    """A study's cells and what each needs; made by :func:`mmgn.study.plan.plan`.

    Attributes:
        options: the command line.
        cells: the grid.
        largest: the grid's largest batch size.
        pretrained: the weights that BN* starts from; None for those of the study's own BN cells.
        facts: of each cell, the columns of study.csv that are known before it is trained.
        base: the base config.
        configs: of each cell; written where it is trained.
        settings: of each cell, its whole config, a setting a line.
        head: what is varied and what is held, a line each.
        outcomes: of the cells that are finished, skipped or have failed.
    """

    options: Options
    cells: list[Cell] = field(default_factory=list)
    largest: int = 0
    pretrained: str | None = None
    facts: dict[Cell, dict[str, Any]] = field(default_factory=dict)
    base: Config = field(default_factory=Config)
    configs: dict[Cell, Config] = field(default_factory=dict)
    settings: dict[Cell, str] = field(default_factory=dict)
    head: list[str] = field(default_factory=list)
    outcomes: dict[Cell, Outcome] = field(default_factory=dict)

    @property
    def task(self) -> Task:
        """What is studied."""
        return TASKS[self.options.task]

    @property
    def embedded(self) -> bool:
        """Whether the data are made on the spot."""
        return self.options.data in ("embedded", *self.task.makers)

    @property
    def from_the_beginning(self) -> bool:
        """Whether a cell that was interrupted begins anew; those that may take days go on from a checkpoint."""
        return self.embedded and self.options.launcher == "none"

    def config(self, cell: Cell) -> Path:
        """Return the path of a cell's config."""
        return self.options.out / "configs" / f"{cell.id}.py"

    def folder(self, cell: Cell) -> Path:
        """Return a cell's work directory."""
        return self.options.out / cell.id

    def waits_for(self, cell: Cell) -> Cell | None:
        """Return the cell whose weights a cell starts from, if there is one."""
        own = cell.norm == "BN*" and not self.pretrained
        return pretraining(cell, self.largest) if own else None

    def in_order(self, cells: list[Cell]) -> list[Cell]:
        """Return cells in the order to train them: those that others wait for, then small batches, which take long."""
        first = {self.waits_for(cell) for cell in self.cells}
        return sorted(cells, key=lambda cell: (cell not in first, cell.batch_size))

    def pending(self) -> list[Cell]:
        """Return the cells that have no outcome, in the order to train them."""
        return self.in_order([cell for cell in self.cells if cell not in self.outcomes])

    def survey(self) -> None:
        """Find out which cells are finished and which cannot be trained here.

        Raises:
            ValueError: a cell has begun with other settings than those planned now.
        """
        # A job may be at work without a checkpoint yet.
        begun = "run.json" if self.options.launcher == "slurm" else "last_checkpoint"
        for cell in self.cells:
            reason = self.skip_reason(cell)
            if reason:
                self.outcomes[cell] = Outcome("skipped", reason)
                continue
            outcome = read_outcome(self.folder(cell), self.task)
            if outcome or (self.folder(cell) / begun).is_file():
                self._check_settings(cell)
            if outcome and outcome.status == "done":
                self.outcomes[cell] = outcome

    def _check_settings(self, cell: Cell) -> None:
        path = self.folder(cell) / SETTINGS
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        old, new = (
            {line for line in lines.splitlines() if not _NO_FIGURE.match(line)} for lines in (text, self.settings[cell])
        )
        if old != new:
            was, now = (min(lines, default="nothing") for lines in (old - new, new - old))
            raise ValueError(
                f"{self.folder(cell)} was trained with other settings: {was}, now {now}. Give another --out, or remove "
                "that folder to have the cell trained anew"
            )

    def clear(self, cell: Cell) -> None:
        """Have a cell begin anew: what an earlier, unfinished training has left goes."""
        shutil.rmtree(self.folder(cell), ignore_errors=True)
        self.record_settings(cell)

    def record_settings(self, cell: Cell) -> None:
        """Write a cell's config and, into its folder, all the settings that it is trained with."""
        self.folder(cell).mkdir(parents=True, exist_ok=True)
        write_config(self.config(cell), self.base, self.configs[cell])
        write_whole(self.folder(cell) / SETTINGS, self.settings[cell].encode())

    def blocked(self, cell: Cell) -> Outcome | None:
        """Return a cell's outcome where the weights that it starts from have failed; None where it can start."""
        model = self.waits_for(cell)
        outcome = self.outcomes.get(model) if model else None
        if model is None or outcome is None or outcome.status == "done":
            return None
        return Outcome("failed", f"its BN model, {model.id}, has {outcome.status}")

    def skip_reason(self, cell: Cell) -> str | None:
        """Return why a cell cannot be trained here, None if it can."""
        if cell.norm != "SyncBN":
            return None
        if self.options.launcher == "none" or self.options.processes < 2:
            return "SyncBN of one process is BN: it needs --launcher pytorch or slurm, and --gpus 2 or more"
        # Slurm's nodes have what this machine may not have.
        if self.options.launcher == "pytorch" and not torch.cuda.is_available():
            return "torch has no SyncBN for the CPU: it needs GPUs"
        return None
