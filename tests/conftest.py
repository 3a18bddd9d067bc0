import datetime
import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

# Triton asks whether to interpret when a kernel is decorated, its own library's at its import: so before anything
# imports it. What must compile here runs in a process of its own, without the variable.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


# What tests of several folders share.
sys.path.append(str(Path(__file__).with_name("corpora")))

# Moves the data of every config that is loaded.
os.environ.pop("MMDET_DATASETS", None)


@pytest.fixture(autouse=True, scope="session")
def interruptible():
    """Let what the tests start be interrupted: a shell's background jobs, and their children, ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    parser.addoption(
        "--figures", type=Path, metavar="DIR", help="write the figures that tests find into DIR, as NAME.json"
    )


@pytest.fixture
def figures(request):
    """Keep what a test has found, as rows of a table of docs/reliability.md, if --figures asks for it."""

    def keep(name, what, rows):
        folder = request.config.getoption("--figures")
        print(what, *rows, sep="\n")
        if folder is None:
            return
        from mmgn.compat import environment

        found = environment.collect()
        path = request.node.path.relative_to(request.config.rootpath)
        report = {
            "what": what,
            "date": datetime.date.today().isoformat(),
            "cpu": found["system"]["cpu"],
            "cores": os.cpu_count(),
            "versions": {"python": sys.version.split()[0], "torch": torch.__version__},
            "command": f"python -m pytest -m soak --figures DIR {path}",
            "rows": rows,
        }
        # A test may have gone elsewhere.
        folder = request.config.invocation_params.dir / folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")

    return keep


@pytest.fixture(scope="session")
def docs_script():
    """Import a script of docs/ as it runs, beside what it shares with the others."""

    def load(name):
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(Path(__file__).parents[1] / "docs")
            return importlib.import_module(name)

    return load


@pytest.fixture
def call_tool(monkeypatch, capsys):
    """Run a tool's main() in this process; returns the exit status and all it printed."""

    def call(cwd, name, *args):
        from mmengine.visualization import Visualizer

        # A process has one visualizer, which goes by its first one's type.
        for kind in (Visualizer, *Visualizer.__subclasses__()):
            kind._instance_dict.clear()
        spec = importlib.util.spec_from_file_location(Path(name).stem, Path(__file__).parents[1] / "tools" / name)
        tool = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(tool)
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", [name, *map(str, args)])
        status, said = 0, ""
        try:
            tool.main()
        except SystemExit as error:
            status, said = (1, error.code) if isinstance(error.code, str) else (error.code or 0, "")
        printed = capsys.readouterr()
        return status, printed.out + printed.err + said

    return call


@pytest.fixture
def killed_trainings(tmp_path):
    """Train by tools/train.py, kill, resume; returns what was found of a training that was not, and of those that were.

    Takes the number of processes, and for each training its moments, as tests/engine/killed_trainings.py has them.
    """

    def train(ranks, moments):
        folder = tmp_path / f"on_{ranks}"
        folder.mkdir()
        script = Path(__file__).with_name("engine") / "killed_trainings.py"
        plan = json.dumps({"ranks": ranks, "trainings": moments})
        env = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run([sys.executable, script, folder, plan], env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        whole, *killed = map(json.loads, done.stdout.splitlines())
        for training in killed:
            assert training["statuses"] == [0] * ranks, training["log"]
            assert training["bits"] == 0
            assert training["facts"] == whole["facts"]
        return whole, killed

    return train
