from pathlib import Path

import mmdet
import pytest
from mmengine.config import Config

import mmgn  # noqa: F401
from mmgn.engine.config import CONFIGS, package_configs
from mmgn.engine.norm_swap.source import NoModelError, read_source

DIGITS = "digits/mask-rcnn_r18-mini_fpn_fusedgn-all_digits.py"
RETINA = "retinanet/retinanet_r50_fpn_1x_coco.py"


def test_a_package_s_config_by_name_and_by_path():
    by_name = read_source(f"mmdet::{RETINA}")
    by_path = read_source(str(Path(mmdet.__file__).parent / ".mim" / "configs" / RETINA))
    assert by_name == by_path
    assert by_name.cfg["model"]["type"] == "RetinaNet"
    assert by_name.scope == "mmdet"
    assert by_name.base_for(Path("anywhere/out.py")) == f"mmdet::{RETINA}"


@pytest.mark.parametrize(
    "name", ["gn+ws/mask-rcnn_r50_fpn_gn-ws-all_2x_coco.py", "regnet/retinanet_regnetx-3.2GF_fpn_1x_coco.py"]
)
def test_names_that_mmengine_has_trouble_with_are_found_all_the_same(tmp_path, name):
    source = read_source(f"mmdet::{name}")
    (tmp_path / "out.py").write_text(f"_base_ = {source.base_for(tmp_path / 'out.py')!r}")
    read = Config.fromfile(tmp_path / "out.py")
    assert read.model.backbone == source.cfg["model"]["backbone"]
    assert "site-packages" not in (tmp_path / "out.py").read_text()


def test_our_own_configs_by_their_path_below_configs():
    source = read_source(DIGITS)
    assert source.path.resolve() == (CONFIGS / DIGITS).resolve()
    assert source.base_for(CONFIGS.resolve() / "mine" / "out.py") == f"mmgn::{DIGITS}"


@pytest.mark.parametrize(
    "text, message",
    [
        ("from mmengine.config import read_base\nwith read_base():\n    from .x import *\n", "inherits by read_base"),
        ("from mmdet.models import FPN\nmodel = dict(neck=dict(type=FPN))", r"of the same name: mmdet::FOLDER/NAME\)"),
        ("_base_ = 'missing.py'", "cannot be read: .*missing.py"),
        ("model = dict(", "cannot be read: SyntaxError"),
        ("train_cfg = dict()", "has no model with a type"),
        ("model = dict(backbone=dict(type='ResNet'))", "has no model with a type"),
    ],
)
def test_configs_that_cannot_be_swapped(tmp_path, text, message):
    (tmp_path / "config.py").write_text(text)
    with pytest.raises(NoModelError if "no model" in message else ValueError, match=message):
        read_source(str(tmp_path / "config.py"))


def test_a_config_that_is_not_there():
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_source("mmdet::retinanet/retinanet_r51_fpn_1x_coco.py")
    assert package_configs("json") is None
    assert package_configs("no_such_package") is None
