"""Run a selection of the tests under other versions: a virtual environment per row, the results in benchmarks.

Needs uv, which .[dev] brings, and the rows' Pythons as python3.X on PATH (with pyenv, name them in PYENV_VERSION).
A row downloads up to 6 GB, takes minutes, and is removed afterwards. A compiled mmcv is the wheel in MMCV_WHEEL.
"""

import argparse
import datetime
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any, NamedTuple

from mmgn.compat import environment

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks/results/reliability/versions.json"
# Import, op and layer, what mmgn mends in OpenMMLab's packages, models, kernels, and a training with its evaluation.
TESTS = [
    *("ops/test_reference.py", "ops/test_functional.py", "layers/test_group_norm.py", "models/test_variants.py"),
    *(f"compat/test_{name}.py" for name in ("checkpoint", "download", "environment", "packages")),
    *("compat/test_mmcv_ops.py", "compat/test_mmcv_ops_nms.py", "compat/test_mmcv_ops_roi.py"),
    *("weights/test_conversion.py", "test_import.py::test_torch_alone_is_enough_for_op_and_layer"),
    "ops/triton/test_availability.py::test_everything_else_works_where_triton_cannot_be_imported",
    "ops/triton/test_offsets.py",
    "tools/test_train.py::test_resumes_with_optimizer_and_schedule",
    "tools/test_train.py::test_evaluates_a_checkpoint_and_dumps_predictions",
]
TORCH = ("torch==2.14.1", "torchvision==0.29.1")
# Of .[test], what these tests import. Triton 3.4's and 3.6's interpreters loop to no run-time number with numpy 2.4.
TEST = ("pytest>=8", "pytest-timeout>=2.3", "hypothesis>=6.100", "safetensors>=0.4", "tensorboard>=2.15", "timm>=1.0")
ONEDL = ("onedl-mmengine==0.10.12", "onedl-mmcv==2.3.6", "onedl-mmdetection==3.5.1", "faster-coco-eval>=1.6", "jinja2")


class Row(NamedTuple):
    """An environment: mmgn with an extra or, where that is None, without what it asks for; what else, and what not."""

    name: str
    python: str = "3.11"
    packages: tuple[str, ...] = (*TORCH, *TEST)
    extra: str | None = "quickstart"
    without: str = ""


ROWS = [
    *(Row(f"Python {python}", python) for python in ("3.11", "3.10", "3.12", "3.13")),
    Row("torch 2.4", "3.10", ("torch==2.4.1", "torchvision==0.19.1", *TEST)),
    Row("torch 2.8", packages=("torch==2.8.0", "torchvision==0.23.0", "numpy<2.4", *TEST)),
    Row("torch 2.11", packages=("torch==2.11.0", "torchvision==0.26.0", "numpy<2.4", *TEST)),
    Row("torch 2.15", packages=("torch==2.15.0", "torchvision==0.29.2", *TEST)),
    Row("lowest of all", "3.10", ("--resolution=lowest-direct", "numpy==1.26.4", *TEST)),
    Row("numpy 1.26", packages=(*TORCH, "numpy==1.26.4", *TEST)),
    Row("no Triton", without="triton"),
    Row("OneDL", packages=(*TORCH, *TEST, *ONEDL, "scikit-learn"), extra=None),
    Row("compiled mmcv", packages=(*TORCH, *TEST, "scikit-learn", os.environ.get("MMCV_WHEEL", "")), extra="report"),
]


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    names = [row.name for row in ROWS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=names, default=names, metavar="ROW", help=f"of {', '.join(names)}")
    args = parser.parse_args()
    if shutil.which("uv") is None:
        parser.error("uv is not on PATH: pip install uv")
    return args


def run_row(row: Row, scratch: Path) -> dict[str, Any]:
    """Make a row's environment and run the tests in it; what keeps them from running is told as its remark."""
    if "" in row.packages:
        return {"remark": "not run: no wheel of a compiled mmcv is published for torch >= 2.4; MMCV_WHEEL can name one"}
    python = scratch / "venv/bin/python"
    install = ["uv", "pip", "install", "--no-config", "--quiet", f"--python={python}"]
    mmgn = ["-e", f"{ROOT}[{row.extra}]"] if row.extra else []
    for step in (
        ["uv", "venv", "--quiet", "--no-python-downloads", f"--python={row.python}", str(scratch / "venv")],
        [*install, *row.packages, *mmgn],
        [] if row.extra else [*install, "--no-deps", "-e", str(ROOT)],
        ["uv", "pip", "uninstall", "--quiet", f"--python={python}", row.without] if row.without else [],
    ):
        if step and (done := subprocess.run(step, capture_output=True, text=True)).returncode:
            return {"remark": f"not run: {' '.join(done.stderr.split())[:300]}"}
    return {**versions(python), **run_tests(python, scratch)}


def versions(python: Path) -> dict[str, str]:
    """Return what tells an environment from another, by column."""
    command = ["uv", "pip", "list", "--quiet", "--format=json", f"--python={python}"]
    listed = json.loads(subprocess.check_output(command, text=True))
    found = {package["name"]: package["version"].partition("+")[0] for package in listed}
    openmmlab = [f"{name} {found[name]}" for name in sorted(found) if name.startswith(("mmc", "mmd", "mme", "onedl"))]
    columns = {"Python": subprocess.check_output([python, "-V"], text=True).split()[1]}
    columns |= {name: found.get(name, "none") for name in ("torch", "triton", "numpy")}
    return columns | {"OpenMMLab": ", ".join(openmmlab)}


def run_tests(python: Path, scratch: Path) -> dict[str, Any]:
    """Run the tests with an environment's Python; returns counts, minutes, and the names of those that failed."""
    began, report = time.monotonic(), scratch / "junit.xml"
    # What is said of Pythons is said to the one that runs this.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PY")}
    environ |= {"OMP_NUM_THREADS": "1", "PATH": f"{python.parent}:{os.environ['PATH']}"}
    subprocess.run([python, "-m", "pytest", "-q", f"--junitxml={report}", *TESTS], cwd=ROOT / "tests", env=environ)
    if not report.exists():
        return {"remark": "not run: pytest does not start"}
    cases = list(ET.parse(report).getroot().iter("testcase"))
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = sum(case.find("skipped") is not None for case in cases)
    return {
        "passed": len(cases) - len(failed) - skipped,
        "failed": len(failed),
        "skipped": skipped,
        "minutes": (time.monotonic() - began) / 60,
        "remark": ", ".join(dict.fromkeys(case.attrib["name"].partition("[")[0] for case in failed)),
    }


def main() -> None:
    """Run the rows one after the other, and write the file after each; rows of earlier runs stay in it."""
    args = parse_args()
    kept = {row["row"]: row for row in json.loads(OUT.read_text())["rows"]} if OUT.exists() else {}
    today = datetime.date.today().isoformat()
    for row in [row for row in ROWS if row.name in args.rows]:
        with tempfile.TemporaryDirectory(prefix="versions-") as scratch:
            kept[row.name] = {"row": row.name, "date": today, **run_row(row, Path(scratch))}
        print(kept[row.name], flush=True)
        report = {
            "what": "A selection of the tests under other versions",
            "date": today,
            "cpu": environment.cpu_name(),
            "cores": os.cpu_count(),
            "versions": {"uv": subprocess.check_output(["uv", "-V"], text=True).split()[1]},
            "command": "python tools/version_matrix.py",
            "rows": [kept[row.name] for row in ROWS if row.name in kept],
        }
        OUT.write_text(json.dumps(report, indent=2) + "\n")
    if bad := [name for name in args.rows if kept[name].get("failed", name != "compiled mmcv")]:
        sys.exit(f"tests failed, or did not run, under {', '.join(bad)}: see {OUT}")


if __name__ == "__main__":
    main()
