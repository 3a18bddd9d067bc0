import importlib.util
import os
import signal
import sys
from pathlib import Path

import pytest
import torch

# Triton asks whether to interpret when a kernel is decorated, its own library's at its import: so before anything
# imports it. What must compile here runs in a process of its own, without the variable.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


# Moves the data of every config that is loaded.
os.environ.pop("MMDET_DATASETS", None)


@pytest.fixture(autouse=True, scope="session")
def interruptible():
    """Let what the tests start be interrupted: a shell's background jobs, and their children, ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


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
