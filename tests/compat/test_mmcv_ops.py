import copy
import importlib
import importlib.machinery
import inspect
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmgn.compat import mmcv_ops

mmcv = pytest.importorskip("mmcv")
mmcv_ops.install()
if mmcv_ops.served_ops()["nms"] != "torchvision":
    pytest.skip("the installed mmcv is compiled", allow_module_level=True)
mmcv_ops_api = importlib.import_module("mmcv.ops")
ext = importlib.import_module("mmcv._ext")
ops = importlib.import_module("mmgn.compat.ops")

# Hides the installed mmcv from the ordinary finder, as if it were not installed.
NO_MMCV = """
import sys
from importlib.machinery import PathFinder

class WithoutMmcv(PathFinder):
    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        return None if fullname.split('.')[0] == 'mmcv' else super().find_spec(fullname, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = WithoutMmcv
"""
INSTALL = "from mmgn.compat import mmcv_ops; mmcv_ops.install()\n"


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_install_comes_last_and_once():
    before = list(sys.meta_path)
    mmcv_ops.install()
    assert sys.meta_path == before
    # Others, six among them, append theirs as well.
    (ours,) = (k for k, finder in enumerate(before) if type(finder).__module__ == "mmgn.compat.mmcv_ops")
    assert ours > before.index(importlib.machinery.PathFinder)


def test_install_and_listing_import_nothing():
    # Loaded by its path: importing mmgn itself imports torch.
    out = run(
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('alone', {mmcv_ops.__file__!r})\n"
        "alone = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(alone)\n"
        "alone.install()\n"
        "print(alone.served_ops()['nms'], {'torch', 'torchvision', 'mmcv', 'numpy'} & set(sys.modules))\n"
    )
    assert out.split() == ["torchvision", "set()"]


def test_mmdet_imports_after_mmcv_ops_failed_without_us():
    run(
        "try:\n    import mmcv.ops\n"
        "except ModuleNotFoundError as error:\n    assert error.name == 'mmcv._ext'\n"
        "else:\n    raise SystemExit('mmcv.ops imported without help')\n"
        "try:\n    import mmdet.apis\nexcept ImportError:\n    pass\n" + INSTALL + "import mmcv.ops, mmdet.apis\n"
    )


def test_compiled_extension_wins(tmp_path: Path):
    (tmp_path / "_ext.py").write_text("compiled = True\n")
    out = run(
        INSTALL + f"import mmcv; mmcv.__path__.append({str(tmp_path)!r})\n"
        "print(set(mmcv_ops.served_ops().values()))\n"
        "import mmcv._ext\n"
        "print(mmcv._ext.compiled, set(mmcv_ops.served_ops().values()))\n"
    )
    assert out.splitlines() == ["{'mmcv (compiled)'}", "True {'mmcv (compiled)'}"]


def test_missing_mmcv_is_explained_to_who_imports_mmdet_alone():
    out = run(
        NO_MMCV + INSTALL + "import importlib.util\n"
        # OneDL's mmdet itself imports without.
        "for name in ('mmdet.models', 'mmcv'):\n"
        "    try:\n        importlib.import_module(name)\n"
        "    except ModuleNotFoundError as error:\n        print(error.name, '|', error)\n"
        "print(importlib.util.find_spec('mmcv'), set(mmcv_ops.served_ops().values()))\n"
    )
    explained, *plain = out.splitlines()
    assert explained.startswith("mmcv | mmdet needs mmcv")
    assert "pip install 'mmgn[lite]'" in explained
    assert "mmcv >=2.0.1,<2.2" in explained
    assert plain == ["mmcv | No module named 'mmcv'", "None {'not served'}"]


def test_extension_names_its_origin():
    assert ext.__spec__.origin == "mmgn.compat.ops"
    assert not hasattr(ext, "__file__")
    assert not hasattr(ext, "__path__")
    assert repr(ext) == "<module 'mmcv._ext' (mmgn.compat.ops)>"
    assert {name for name, _ in inspect.getmembers(ext, inspect.isfunction)} >= set(ops.__all__)


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="mmcv and mmengine ask by pkgutil.find_loader, gone in 3.14")
@pytest.mark.filterwarnings("ignore:.*find_loader:DeprecationWarning")
def test_mmcv_and_mmengine_see_the_ops():
    from mmcv.utils.ext_loader import check_ops_exist
    from mmengine.utils.dl_utils import mmcv_full_available

    assert check_ops_exist()
    assert mmcv_full_available()


def test_environment_report_names_torchvision():
    import torchvision
    from mmcv.utils import collect_env

    report = collect_env()
    assert torchvision.__version__ in report["MMCV Compiler"]
    cuda = torch.version.cuda
    assert report["MMCV CUDA Compiler"] == ("not available" if cuda is None else cuda)


def test_listing_matches_what_is_served():
    operators = {re.sub("_(forward|backward).*", "", name) for name in ops.__all__ if not name.startswith("get_")}
    assert operators == set(mmcv_ops.SERVED_BY)
    assert mmcv_ops.served_ops() == {**mmcv_ops.SERVED_BY, "other ops": "not served"}


def test_signatures_match_the_bindings_of_mmcv():
    source = Path(mmcv.__file__).parent / "ops/csrc/pytorch/pybind.cpp"
    if not source.exists():
        pytest.skip("this mmcv ships no sources")
    bindings = {
        name: re.findall(r'py::arg\("(\w+)"\)', body)
        for name, body in re.findall(r'm\.def\(\s*"(\w+)",(.*?)\);', source.read_text(), re.DOTALL)
    }
    for name in ops.__all__:
        if name.startswith("get_"):
            continue
        parameters = inspect.signature(getattr(ops, name)).parameters
        named = [key for key, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
        if len(named) == len(parameters):
            assert named == bindings[name], name
        else:
            # mmcv passes the geometry of deformable convolutions by keyword.
            assert [key for key in bindings[name] if key in named] == named, name


def test_unserved_op_imports_and_raises_when_called():
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0, 0.0]])
    with pytest.raises(NotImplementedError, match=r"box_iou_rotated needs .* mmcv >=2\.0\.1,<2\.2"):
        mmcv_ops_api.box_iou_rotated(boxes, boxes)


def test_ops_and_modules_that_use_them_copy_and_pickle():
    assert pickle.loads(pickle.dumps(ext.carafe_forward)) is ext.carafe_forward
    assert pickle.loads(pickle.dumps(ext.nms)) is ext.nms
    layer = mmcv_ops_api.ModulatedDeformConv2dPack(2, 2, 3)
    x = torch.rand(1, 2, 5, 5)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        torch.testing.assert_close(twin(x), layer(x))
