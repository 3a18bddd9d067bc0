"""Reads an MMEngine work directory: scalars of all its runs, the configuration as text, run.json."""

import glob
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from mmgn.report.record import read_record, whole
from mmgn.report.setup import mapping, read_config, string


@dataclass
class WorkDir:
    """What a work directory holds, runs that resumed one another merged into one."""

    path: Path
    #: Training lines by increasing ``step``, the iteration.
    train: list[dict[str, Any]] = field(default_factory=list)
    #: Validation lines; ``after`` is the last training step logged before each.
    val: list[dict[str, Any]] = field(default_factory=list)
    config_text: str | None = None
    #: run.json as ``mmgn.engine.RunRecordHook`` wrote it, ``{}`` without one.
    record: dict[str, Any] = field(default_factory=dict)
    last_checkpoint: str | None = None
    #: Sentences for the reader on what was missing or skipped.
    notes: list[str] = field(default_factory=list)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The dumped configuration as data, ``{}`` without one."""
        return read_config(self.config_text or "")

    @property
    def evaluation(self) -> dict[str, Any]:
        """What run.json records of the last evaluation, or else where the configuration has it."""
        return self.record.get("evaluation") or self._configured()

    def locate(self, recorded: str | None) -> Path | None:
        """Return a path of run.json, which is relative to the work directory where it lies inside."""
        return self.path / recorded if recorded else None

    def _configured(self) -> dict[str, Any]:
        metrics = [m for stage in ("test", "val") for m in _listed(self.config.get(f"{stage}_evaluator"))]
        metrics = [m for m in metrics if m.get("ann_file")]
        metric = next((m for m in metrics if m.get("outfile_prefix")), metrics[0] if metrics else {})
        dataset = mapping(mapping(self.config.get("test_dataloader")).get("dataset"))
        while isinstance(dataset.get("dataset"), Mapping):
            dataset = dataset["dataset"]
        images = mapping(dataset.get("data_prefix")).get("img")
        paths = {
            "ann_file": metric.get("ann_file"),
            "img_dir": os.path.join(string(dataset.get("data_root")), images) if isinstance(images, str) else None,
            "results_prefix": metric.get("outfile_prefix"),
        }
        # Paths of a configuration are relative to the folder that the run was started in: this one, with luck.
        found = {key: str(Path(path).absolute()) for key, path in paths.items() if path and isinstance(path, str)}
        prefix = Path(found.get("results_prefix", ""))
        if prefix.name and not any(prefix.parent.glob(f"{glob.escape(prefix.name)}.*.json")):
            found["results_prefix"] = prefix.name
        classes = mapping(dataset.get("metainfo")).get("classes")
        return found | {"classes": classes if isinstance(classes, (list, tuple)) else None}


def read_work_dir(path: Path) -> WorkDir:
    """Read ``path/*/vis_data/scalars.json``, ``path/run.json`` and the dumped configuration.

    Each timestamp folder is one start of the runner. A later run takes over from its first step on: what an
    earlier one logged there was thrown away when the later one began.

    Raises:
        FileNotFoundError: There is no such directory.
        ValueError: A file in it is damaged by more than the torn last line of a killed run.
    """
    if not path.is_dir():
        raise FileNotFoundError(
            f"no work directory {str(path)!r}; give the work_dir of an MMEngine run, a file of COCO results, or the "
            "prefix of PREFIX.bbox.json and PREFIX.segm.json"
        )
    work = WorkDir(path)
    configs = sorted(path.glob("*.py"), key=lambda file: file.stat().st_mtime)
    # Timestamps sort as text.
    for scalars in sorted(path.glob("*/vis_data/scalars.json")):
        train, val = _read_scalars(scalars, work.notes)
        if train:
            first = train[0]["step"]
            work.train = [line for line in work.train if line["step"] < first] + train
            work.val = [line for line in work.val if line["after"] < first] + val
            # The root's copy is overwritten by whoever ran last, which may have been a test.
            if (dumped := scalars.with_name("config.py")).is_file():
                configs.append(dumped)
    if configs:
        work.config_text = configs[-1].read_text(encoding="utf-8", errors="replace")
    if (last := path / "last_checkpoint").is_file():
        work.last_checkpoint = last.read_text(encoding="utf-8", errors="replace").strip()
    if (record := path / "run.json").is_file():
        work.record = read_record(record)
    return work


def _listed(settings: Any) -> list[Mapping[str, Any]]:
    entries = settings if isinstance(settings, (list, tuple)) else [settings]
    return [entry for entry in entries if isinstance(entry, Mapping)]


def _read_scalars(path: Path, notes: list[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Split the lines of LocalVisBackend into training lines, which have ``iter``, and validation lines."""
    train: list[dict[str, Any]] = []
    val: list[dict[str, Any]] = []
    lines = [(number, text) for number, text in enumerate(path.read_bytes().split(b"\n"), 1) if text.strip()]
    for number, text in lines:
        try:
            line = json.loads(text, parse_int=whole)
        except (ValueError, RecursionError) as error:
            if number == lines[-1][0]:
                notes.append(f"The last line of {path} is torn, as a killed run leaves it; it was skipped.")
                break
            raise ValueError(f"{path}:{number} is not JSON: {text[:80]!r} ({error}); remove that line") from error
        if not isinstance(line, dict) or type(line.get("step")) is not int:
            raise ValueError(f"{path}:{number} has no integer 'step': {text[:80]!r}; remove that line")
        # log_processor's log_with_hierarchy puts the stage before each name.
        line = {key.removeprefix("train/").removeprefix("val/"): value for key, value in line.items()}
        if "iter" in line:
            train.append(line)
        elif train:
            val.append(line | {"after": train[-1]["step"]})
    return train, val
