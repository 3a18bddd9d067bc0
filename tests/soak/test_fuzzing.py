"""Every target of tests/fuzz fuzzed for MMGN_FUZZ_MINUTES [10] each, MMGN_FUZZ_JOBS [1] at a time; the corpus grows."""

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("atheris", reason="fuzzing guided by coverage needs it: pip install 'mmgn[fuzz]'")
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
    grown, failures = folder / f"{target}-grown", folder / "failures"
    command = [sys.executable, FUZZ / "fuzz.py", target, "--grown", grown, "--failures", failures, *options]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, errors="replace")
    return done.returncode, done.stdout + done.stderr


def corpus(target):
    return len(list((FUZZ / "corpus" / target).iterdir()))


def fuzz_and_keep(target, folder):
    before = corpus(target)
    code, said = fuzz(target, folder, "--seconds", str(int(60 * MINUTES)))
    counts = re.findall(r"^#(\d+)\s+DONE\s+cov: (\d+)", said, re.M)
    assert counts, f"{target} ended before its time with {code}:\n{said[-3000:]}"
    executions, edges = map(int, counts[-1])
    code, said = fuzz(target, folder, "--merge")
    assert code == 0, f"{target}'s inputs were not merged:\n{said[-3000:]}"
    failures = [path.name for path in (folder / "failures").glob(f"{target}-*") if path.suffix != ".txt"]
    return {
        "target": TARGETS[target],
        "minutes": MINUTES,
        "executions": executions,
        "a second": executions / (60 * MINUTES),
        "branches and functions reached": edges,
        "inputs before": before,
        "inputs after": corpus(target),
        "failures": len(failures),
    }


def test_nothing_fails(tmp_path, figures):
    with ThreadPoolExecutor(JOBS) as pool:
        rows = list(pool.map(lambda target: fuzz_and_keep(target, tmp_path), TARGETS))
    figures("fuzzing", f"Inputs of atheris, guided by coverage of mmgn's own code, {JOBS} targets at a time", rows)
    failures = sorted((tmp_path / "failures").glob("*.txt"))
    told = "\n\n".join(f"{path}:\n{path.read_text()[-2000:]}" for path in failures)
    assert not any(row["failures"] for row in rows), f"inputs are kept in {tmp_path / 'failures'}\n{told}"
