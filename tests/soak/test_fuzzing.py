"""Every target of tests/fuzz fuzzed for MMGN_FUZZ_MINUTES [10] each, MMGN_FUZZ_JOBS [1] at a time; the corpus grows."""

import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

MINUTES = float(os.environ.get("MMGN_FUZZ_MINUTES", "10"))
JOBS = int(os.environ.get("MMGN_FUZZ_JOBS", "1"))
FUZZ = Path(__file__).parents[1] / "fuzz"
TARGETS = {
    "annotations": "annotation checker",
    "checkpoints": "checkpoint converters",
    "configs": "swap tool",
    "reports": "report reader",
    "arguments": "group_norm's arguments",
    "plans": "launch plans",
}
pytestmark = [pytest.mark.soak, pytest.mark.timeout(int(len(TARGETS) * (60 * MINUTES + 600)))]


def fuzz(target, folder, *options):
    """Run tests/fuzz/fuzz.py; what it says is kept beside what it finds."""
    grown, failures = folder / f"{target}-grown", folder / "failures"
    command = [sys.executable, FUZZ / "fuzz.py", target, "--grown", grown, "--failures", failures, *options]
    with (folder / f"{target}.log").open("w+", errors="replace") as log:
        code = subprocess.run(list(map(str, command)), stdout=log, stderr=subprocess.STDOUT).returncode
        log.seek(0)
        return code, log.read()


def corpus(target):
    return len(list((FUZZ / "corpus" / target).iterdir()))


def fuzz_and_keep(target, folder):
    before, start = corpus(target), time.monotonic()
    _, said = fuzz(target, folder, "--seconds", str(int(60 * MINUTES)))
    seconds = time.monotonic() - start
    # A crash that takes the process along ends it early, and leaves its input among the failures.
    executions, edges = map(int, re.findall(r"^#(\d+)\s+\w+\s+cov: (\d+)", said, re.M)[-1])
    code, said = fuzz(target, folder, "--merge")
    assert code == 0 and "Permission denied" not in said, f"{target}'s inputs were not merged:\n{said[-3000:]}"
    failures = [path.name for path in (folder / "failures").glob(f"{target}-*") if path.suffix != ".txt"]
    return {
        "target": TARGETS[target],
        "minutes": seconds / 60,
        "executions": executions,
        "a second": executions / seconds,
        "branches reached": edges,
        "inputs before": before,
        "inputs after": corpus(target),
        "failures": len(failures),
    }


def test_nothing_fails(tmp_path, figures):
    pytest.importorskip("atheris", reason="fuzzing guided by coverage needs it: pip install 'mmgn[fuzz]'")
    with ThreadPoolExecutor(JOBS) as pool:
        rows = list(pool.map(lambda target: fuzz_and_keep(target, tmp_path), TARGETS))
    figures("fuzzing", f"Inputs of atheris, guided by coverage of mmgn's own code, {JOBS} targets at a time", rows)
    failures = sorted((tmp_path / "failures").glob("*.txt"))
    assert all(row["minutes"] > 0.9 * MINUTES for row in rows), f"ended early: see the logs in {tmp_path}"
    told = "\n\n".join(f"{path}:\n{path.read_text()[-2000:]}" for path in failures)
    assert not any(row["failures"] for row in rows), f"inputs are kept in {tmp_path / 'failures'}\n{told}"
