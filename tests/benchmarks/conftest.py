import importlib
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def benchmark_module():
    """Import a benchmark by name, as running it does: its folder first on the path."""
    folder = str(Path(__file__).parents[2] / "benchmarks")

    def load(name):
        sys.path.insert(0, folder)
        try:
            return importlib.import_module(name)
        finally:
            sys.path.remove(folder)

    return load
