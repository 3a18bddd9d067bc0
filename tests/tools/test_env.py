import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

TOOL = Path(__file__).parents[2] / "tools" / "env.py"


def run(*arguments, python=(sys.executable,), path=(TOOL.parents[1],)):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    command = [*python, str(TOOL), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_text_and_json_say_the_same():
    env = json.loads(run("--json"))
    text = run()
    assert env["torch"] == torch.__version__
    assert all(str(env[key]) in text for key in ("mmgn", "python", "torch"))
    assert all(fact in text for fact in env["packages"].values() if fact)


@pytest.fixture
def torch_alone(tmp_path):
    """Folder with what is installed, but for torchvision, triton, OpenCV and all of OpenMMLab."""
    installed = Path(torch.__file__).parents[1]
    for entry in installed.iterdir():
        if not entry.name.startswith(("mm", "onedl", "cv2", "opencv", "torchvision", "triton")):
            (tmp_path / entry.name).symlink_to(entry)
    return tmp_path


def test_runs_with_torch_alone(torch_alone):
    # Without site there is no site-packages but the given folder.
    path = [torch_alone, TOOL.parents[1]]
    env = json.loads(run("--json", python=(sys.executable, "-S"), path=path))
    assert set(env["packages"].values()) == {None}
    assert not env["triton"]["package"]
    assert env["patches"]["checkpoint"].startswith("inactive")
    assert any("No module named 'cv2'" in clash and "pip install" in clash for clash in env["clashes"])
