import os
import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# How many arguments of a script are not its tool's, and where among them the tool's first ones are.
SCRIPTS = {"dist_train": (2, [0]), "dist_test": (3, [0, 1]), "slurm_train": (4, [2]), "slurm_test": (4, [2, 3])}


@pytest.fixture
def parsed(monkeypatch):
    """What a tool's own parser makes of the words of a command."""

    def parse(words):
        at = next(i for i, word in enumerate(words) if re.search(r"tools/\w+\.(sh|py)$", word))
        name, args = Path(words[at]).stem, [word for word in words[at + 1 :] if word != "&"]
        assert (ROOT / "tools" / Path(words[at]).name).is_file()
        if name in SCRIPTS:
            assert os.access(ROOT / "tools" / f"{name}.sh", os.X_OK)
            count, own = SCRIPTS[name]
            assert len(args) >= count
            if name.startswith("dist"):
                assert int(args[count - 1]) >= 1
            args, name = [*(args[i] for i in own), *args[count:]], name.partition("_")[2]
        monkeypatch.setenv("LOCAL_RANK", "0")
        monkeypatch.setattr(sys, "argv", [name, *args])
        return runpy.run_path(str(ROOT / "tools" / f"{name}.py"))["parse_args"]()

    return parse
