import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

pytest.importorskip("mmdet")

import mmengine.hub
from mmengine.config import Config

from mmgn.compat import packages

packages.install()


def distribution(folder, name, module, where=None):
    """Installs an empty ``module`` as pip would, with its files in ``where`` for an editable install."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "top_level.txt").write_text(f"{module}\n")
    package = (where or folder) / module
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").touch()
    return package


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path / "src")
    monkeypatch.syspath_prepend(tmp_path / "site")
    packages._distributions.cache_clear()
    yield tmp_path / "site"
    packages._distributions.cache_clear()


def test_configs_of_mmdet_can_be_inherited_from_and_asked_for(tmp_path):
    name = "mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py"
    (tmp_path / "config.py").write_text(f"_base_ = {name!r}\nmodel = dict(backbone=dict(depth=101))\n")
    inherited = Config.fromfile(tmp_path / "config.py").model
    assert (inherited.type, inherited.backbone.depth, inherited.neck.type) == ("MaskRCNN", 101, "FPN")
    assert mmengine.hub.get_config(name).model.backbone.depth == 50


@pytest.mark.skipif(not packages.active(), reason="pkg_resources is there")
def test_every_module_of_mmengine_got_the_replacements():
    from mmengine.config import config
    from mmengine.hub import hub

    for module in (mmengine.utils, config):
        assert module.is_installed is packages.is_installed
    for module in (mmengine.utils, config, hub):
        assert module.get_installed_path is packages.get_installed_path
    # Others probe for it; a stand-in would mislead them.
    assert "pkg_resources" not in sys.modules


def test_pkg_resources_where_there_is_one_is_left_in_charge(tmp_path):
    (tmp_path / "pkg_resources.py").touch()
    check = (
        "from mmgn.compat import packages; packages.install(); import mmengine.utils as u;"
        "assert not packages.active() and u.is_installed.__module__.startswith('mmengine')"
    )
    path = ":".join([str(tmp_path), *sys.path])
    done = subprocess.run([sys.executable, "-c", check], env={"PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_is_installed(site):
    distribution(site, "some-name", "other_name")
    (site / "only_folder").mkdir()
    assert packages.is_installed("mmdet") and packages.is_installed("json")
    assert packages.is_installed("some-name") and packages.is_installed("other_name")
    assert not packages.is_installed("no-such") and not packages.is_installed("only_folder")


def test_installed_path(site, tmp_path):
    import mmdet

    assert packages.get_installed_path("mmdet") == str(Path(mmdet.__file__).parent)
    # The module has another name than its distribution; the files of the second lie elsewhere.
    renamed = distribution(site, "some-name", "other_name")
    assert packages.get_installed_path("some-name") == str(renamed)
    editable = distribution(site, "work-in-progress", "wip", where=tmp_path / "src")
    assert packages.get_installed_path("work-in-progress") == packages.get_installed_path("wip") == str(editable)


def test_installed_path_of_nothing(site):
    (site / "only_folder").mkdir(parents=True)
    with pytest.raises(metadata.PackageNotFoundError, match="no-such"):
        packages.get_installed_path("no-such")
    with pytest.raises(RuntimeError, match="only_folder has no one folder"):
        packages.get_installed_path("only_folder")


def test_forks_are_told_from_upstream(site, tmp_path):
    distribution(site, "plain", "plain")
    distribution(site, "onedl-forked", "forked")
    distribution(site, "onedl-editable", "editable", where=tmp_path / "src")
    # Later on the path, so never imported.
    distribution(tmp_path / "src", "onedl-plain", "plain")
    assert [packages.fork_of(name) for name in ("torch", "plain", "forked", "editable")] == [
        *("upstream", "upstream", "onedl-forked", "onedl-editable")
    ]
    with pytest.raises(metadata.PackageNotFoundError):
        packages.fork_of("no_such")


def test_distributions_over_one_another_are_both_named(site):
    distribution(site, "shared", "shared")
    distribution(site, "shared-lite", "shared")
    assert packages.owners_of("shared") == ["shared", "shared-lite"]
