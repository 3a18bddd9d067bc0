"""What a benchmark leaves: one JSON file, and a Markdown file that says the same for people."""

import json
import os
import re
import shutil
import statistics
import subprocess
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from mmgn.compat import environment

CPU_NOTE = "Run on a CPU, to try the code: nothing here says anything about a GPU."
_MODES = ("forward", "forward+backward")


def ratios(figures: Mapping[str, Mapping[str, Any]], to: str, key: str, scale: float = 1.0) -> dict[str, float]:
    """Return ``scale`` times every other figure's ``key`` over that of ``to``; what has no figure has no ratio."""
    base = figures[to].get(key)
    if not base:
        return {}
    return {name: round(scale * f[key] / base, 3) for name, f in figures.items() if name != to and key in f}


def describe(device: torch.device) -> dict[str, Any]:
    """Say on what a benchmark runs: device, driver, versions and date, as plain data."""
    env = environment.collect()
    facts: dict[str, Any] = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": env["system"]["cpu"],
        "device_type": device.type,
    }
    if device.type == "cuda":
        gpu = torch.cuda.get_device_properties(device)
        facts |= {
            "device": gpu.name,
            "capability": f"{gpu.major}.{gpu.minor}",
            "multiprocessors": gpu.multi_processor_count,
            "memory_gib": round(gpu.total_memory / 2**30, 1),
            "driver": env["gpu"]["driver"] or _driver(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "cudnn_tf32": torch.backends.cudnn.allow_tf32,
        }
    python = env["python"].split()[0]
    return facts | {"python": python, "torch": env["torch"], **env["packages"], "mmgn": env["mmgn"]}


def _driver() -> str | None:
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    query = [command, "--query-gpu=driver_version", "--format=csv,noheader"]
    said = subprocess.run(query, capture_output=True, text=True, timeout=60).stdout.split()
    return said[0] if said else None


def stem(machine: Mapping[str, Any], suffix: str = "") -> str:
    """Return the file name without its ending: the device, said to be a CPU where it is one, and the suffix."""
    slug = re.sub(r"[^a-z0-9]+", "-", machine["device"].lower()).strip("-")
    return ("" if machine["device_type"] == "cuda" else "cpu-only_") + slug + suffix


def write(report: Mapping[str, Any], folder: Path, name: str, *, complete: bool) -> Path:
    """Write ``name``.json and ``name``.md; what is not complete is called .partial and leaves an earlier result alone.

    Args:
        report: ``machine`` and ``settings`` (facts by name), ``gate`` (a sentence), ``layers`` (rows), ``models``
            (``backend`` and ``workload``, or the ``reason`` why there are none) and ``iterations`` (rows).
        folder: made if it is not there.
        name: as :func:`stem` gives it.
        complete: whether the run is at its end.

    Returns:
        The path of the JSON file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    texts = {".json": to_json(report), ".md": to_markdown(report)}
    for ending, text in texts.items():
        partial = folder / f"{name}.partial{ending}"
        partial.write_text(text)
        if complete:
            os.replace(partial, folder / f"{name}{ending}")
    return folder / (f"{name}.json" if complete else f"{name}.partial.json")


def discard(folder: Path, name: str) -> None:
    """Remove what an unfinished run wrote: its kernel was found wrong."""
    for ending in (".json", ".md"):
        (folder / f"{name}.partial{ending}").unlink(missing_ok=True)


def to_json(report: Mapping[str, Any]) -> str:
    """Write the report as JSON, a line per row, so that the diff of two results can be read."""
    parts = []
    for key, value in report.items():
        listed = isinstance(value, list) and value
        text = "[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n ]" if listed else json.dumps(value)
        parts.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


class _Notes:
    """Reasons as numbered notes, each once."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def __call__(self, reason: str) -> str:
        return f"– [{self.numbers.setdefault(reason, len(self.numbers) + 1)}]"

    def lines(self) -> list[str]:
        return [f"{number}. {reason}" for reason, number in self.numbers.items()]


def to_markdown(report: Mapping[str, Any]) -> str:
    """Write the report as Markdown."""
    machine, notes = report["machine"], _Notes()
    lines = [f"# mmgn benchmark: {machine['device']}", ""]
    if machine["device_type"] != "cuda":
        lines += [f"**{CPU_NOTE}**", ""]
    lines += [f"Correctness gate: {report['gate']}.", ""]
    facts = {**machine, **report["settings"]}
    lines += _table(("", ""), ((key, "absent" if value is None else str(value)) for key, value in facts.items()))
    rows = [row for row in report["layers"] if "mode" in row]
    skipped = [row for row in report["layers"] if "mode" not in row]
    if rows:
        lines += _layer_lines(rows, notes)
    lines += [f"\nNot measured: {r['name']}, {r['layout']}, {r['dtype']}: {r['reason']}." for r in skipped]
    lines += _model_lines(report["models"], report["iterations"], notes)
    if notes.numbers:
        lines += ["", "## Why there is no figure", "", *notes.lines()]
    return "\n".join(lines) + "\n"


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    titles = list(header)
    return [f"| {' | '.join(cells)} |" for cells in (titles, ["---"] * len(titles), *rows)]


def _layer_lines(rows: list[dict[str, Any]], notes: _Notes) -> list[str]:
    names = list(rows[0]["contenders"])
    lines = [
        "",
        "## Layers: norm, addition, activation",
        "",
        "Medians of one run, all contenders in turn, in µs on the device. ×: a contender's time over that of mmgn. "
        "Of copy: the time of a device-to-device copy of the same bytes, for as many passes as the limit has (2 "
        "forward, 5 with backward; with a residual 3 and 7), over that of mmgn.",
    ]
    for mode in _MODES:
        of_mode = [row for row in rows if row["mode"] == mode]
        if not of_mode:
            continue
        lines += ["", f"### {mode}: median × (smallest) over the shapes", ""]
        groups = _grouped(of_mode)
        summary = [(*key, *_summary(group, names[1:])) for key, group in groups.items()]
        lines += _table(("dtype", "layout", "of copy", *names[1:]), summary)
        for (dtype, layout), group in groups.items():
            lines += ["", f"### {mode}, {dtype}, {layout}", ""]
            header = ("", "shape", "after the norm", "copy", "of copy", *names)
            lines += _table(header, (_row_cells(row, names, notes) for row in group))
    if any(row["contenders"][names[0]].get("peak_mib") for row in rows):
        lines += ["", "### Peak memory of forward+backward beyond x and dy, MiB", ""]
        lines += _peak_table([row for row in rows if row["mode"] == _MODES[1]], names, notes)
    lines += ["", "### Host time per call, µs: until the call returns, the device being busy", ""]
    host = []
    for mode in _MODES:
        for key, group in _grouped([row for row in rows if row["mode"] == mode]).items():
            values = {name: [r["contenders"][name].get("host_us") for r in group] for name in names}
            found = {name: [v for v in vs if v is not None] for name, vs in values.items()}
            host.append((mode, *key, *(f"{statistics.median(v):.0f}" if v else "–" for v in found.values())))
    return lines + _table(("mode", "dtype", "layout", *names), host)


def _grouped(rows: list[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["dtype"], row["layout"]), []).append(row)
    return groups


def _summary(group: list[dict[str, Any]], names: list[str]) -> list[str]:
    def said(values: list[float], form: str) -> str:
        return f"{statistics.median(values):{form}} ({min(values):{form}})" if values else "–"

    fractions = [row["fraction_of_copy"] for row in group if row["fraction_of_copy"] is not None]
    speedups = ([row["ratios"][name] for row in group if name in row["ratios"]] for name in names)
    return [said(fractions, ".0%"), *(said(values, ".2f") for values in speedups)]


def _row_cells(row: dict[str, Any], names: list[str], notes: _Notes) -> list[str]:
    def said(name: str, figures: dict[str, Any]) -> str:
        if "us" not in figures:
            return notes(figures["reason"])
        ratio = row["ratios"].get(name)
        return f"{figures['us']:.1f}" + ("" if ratio is None else f" ({ratio:.2f}×)")

    fraction = row["fraction_of_copy"]
    shape = "×".join(map(str, row["shape"]))
    of_copy = "–" if fraction is None else f"{fraction:.0%}"
    contenders = (said(name, row["contenders"][name]) for name in names)
    after = f"add, {row['activation']}" if row["residual"] else row["activation"]
    return [row["name"], shape, after, said("copy", row["copy"]), of_copy, *contenders]


def _peak_table(rows: list[dict[str, Any]], names: list[str], notes: _Notes) -> list[str]:
    def said(figures: dict[str, Any]) -> str:
        return notes(figures["reason"]) if "reason" in figures else f"{figures['peak_mib']:.1f}"

    cells = ([r["name"], r["dtype"], r["layout"], *(said(r["contenders"][name]) for name in names)] for r in rows)
    return _table(("", "dtype", "layout", *names), cells)


def _model_lines(models: Mapping[str, Any], iterations: list[dict[str, Any]], notes: _Notes) -> list[str]:
    lines = ["", "## Mask R-CNN R50-FPN, 4conv1fc heads in all arms", ""]
    if "reason" in models:
        return [*lines, f"Not measured: {models['reason']}."]
    lines.append(
        "Whole iterations by the wall clock, medians in ms; ×: time over that of FusedGN, fused by `mmgn.fuse_gn`; "
        f"peak memory with weights and optimizer state. FusedGN: {models['backend']}. Work: {models['workload']}."
    )
    for part in dict.fromkeys(row["part"] for row in iterations):
        rows = [row for row in iterations if row["part"] == part]
        arms = list(rows[0]["arms"])
        lines += ["", f"### {part}", ""]
        cells = ([row["precision"], *(_arm(row, name, notes) for name in arms)] for row in rows)
        lines += _table(("", *arms), cells)
    return lines


def _arm(row: dict[str, Any], name: str, notes: _Notes) -> str:
    figures = row["arms"][name]
    if "reason" in figures:
        return notes(figures["reason"])
    ratio, peak = row["ratios"].get(name), figures["peak_mib"]
    said = f"{figures['ms']:.1f}" + ("" if ratio is None else f" ({ratio:.2f}×)")
    return said if peak is None else f"{said}, {peak / 1024:.2f} GiB"
