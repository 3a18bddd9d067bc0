import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture(scope="session")
def run_tool():
    """Run a tool in a folder, as a person does; returns the exit status and all it printed."""

    def run(cwd, name, *args):
        result = subprocess.run(
            [sys.executable, str(TOOLS / name), *map(str, args)],
            cwd=cwd,
            # Two tools side by side on two cores, each with two threads, are many times slower.
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        return result.returncode, result.stdout + result.stderr

    return run
