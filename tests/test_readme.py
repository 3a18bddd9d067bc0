"""What the README shows is run here, so that it stays true."""

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from mmgn import FusedGN

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def write_config(folder):
    (snippet,) = re.findall(r"```python\n(_base_.*?)```", README, flags=re.DOTALL)
    path = folder / "my_config.py"
    path.write_text(snippet)
    return path


def test_the_config_builds_a_model_with_gn_in_backbone_and_neck(tmp_path):
    from mmdet.registry import MODELS

    cfg = Config.fromfile(write_config(tmp_path))
    init_default_scope("mmdet")
    cfg.model.backbone.init_cfg = None
    model = MODELS.build(cfg.model)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    for part in (model.backbone, model.neck):
        assert any(isinstance(m, FusedGN) for m in part.modules())
    assert cfg.optim_wrapper.paramwise_cfg.norm_decay_mult == 0


def test_every_file_it_names_is_there():
    named = re.findall(r"\]\((?!http)([^)#]+)\)|python (tools/\w+\.py|benchmarks/\w+\.py)", README)
    paths = {a or b for a, b in named}
    assert {"tools/quickstart.py", "docs/quickstart.jpg"} <= paths
    assert [p for p in sorted(paths) if not (ROOT / p).exists()] == []


@pytest.mark.parametrize("command", re.findall(r"^python (tools/\w+\.py .*)$", README, flags=re.MULTILINE))
def test_its_commands_are_what_the_tools_take(command, tmp_path, monkeypatch):
    write_config(tmp_path)
    # check_dataset.py looks for what its config names.
    (tmp_path / "data/coco/annotations").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        (tmp_path / "data/coco" / split).mkdir()
        (tmp_path / f"data/coco/annotations/instances_{split}.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    script, *args = shlex.split(command, comments=True)
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setattr(sys, "argv", [script, *args])
    runpy.run_path(str(ROOT / script))["parse_args"]()
