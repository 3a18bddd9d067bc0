import subprocess
import sys

BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
# importlib.util.find_spec probes get None, as they do for what is not installed.
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: (
    None if name.partition(".")[0] in BLOCKED else real(name, package))
sys.meta_path.insert(0, Block())
"""


def python(code, blocked=()):
    result = subprocess.run(
        [sys.executable, "-c", f"BLOCKED = {set(blocked)!r}\n{BLOCK}\n{code}"],
        capture_output=True,
        text=True,
    )
    return result.returncode, result.stdout + result.stderr


def test_torch_alone_is_enough_for_op_and_layer():
    code = """
import torch, mmgn
x = torch.randn(2, 32, 4, 4)
assert torch.equal(mmgn.FusedGN(32)(x), torch.group_norm(x, 32, torch.ones(32), torch.zeros(32)))
assert mmgn.group_norm(x, 8, activation="relu").min() == 0
assert not {"mmengine", "mmcv", "mmdet", "torchvision", "triton"} & set(sys.modules)
"""
    blocked = ["mmengine", "mmcv", "mmdet", "torchvision", "triton", "numpy", "cv2"]
    status, output = python(code, blocked)
    assert status == 0, output


def test_mmdet_works_after_mmgn_without_compiled_ops():
    status, output = python("import mmgn\nfrom mmdet.apis import DetInferencer\nimport mmcv.ops")
    assert status == 0, output


def test_the_layer_is_known_to_every_registry_scope():
    status, output = python(
        "import mmgn\nfrom mmdet.registry import MODELS\nassert MODELS.get('FusedGN') is mmgn.FusedGN"
    )
    assert status == 0, output


def test_a_broken_mmengine_is_told_and_op_and_layer_still_work(tmp_path):
    (tmp_path / "cv2.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')")
    code = f"""
sys.path.insert(0, {str(tmp_path)!r})
import mmgn, torch
mmgn.FusedGN(32)(torch.randn(1, 32, 2, 2))
"""
    status, output = python(code)
    assert status == 0, output
    assert "does not import (libGL.so.1" in output


def test_the_variants_come_with_mmdets_models_and_no_sooner():
    status, output = python("""
import mmgn
from mmdet.registry import MODELS
assert "mmdet.models" not in sys.modules
assert MODELS.get("GNMaskRCNN").__module__.startswith("mmgn.models")
""")
    assert status == 0, output


def test_the_variants_are_there_where_mmdets_models_were_imported_first():
    # mmcv-lite leaves mmdet importable after mmgn only, so what mmgn added is taken away and added again.
    status, output = python("""
import mmgn
from mmdet.registry import MODELS
MODELS._locations.remove("mmgn.models.detection")
MODELS.import_from_location()
assert "GNMaskRCNN" not in MODELS
mmgn.registration._register_with_mmdet()
assert "GNMaskRCNN" in MODELS
""")
    assert status == 0, output


def test_an_mmdet_that_refuses_its_mmcv_is_told_and_op_and_layer_still_work(tmp_path):
    (tmp_path / "mmdet").mkdir()
    (tmp_path / "mmdet" / "__init__.py").write_text("assert False, 'MMCV==2.2.0 is used but incompatible'")
    status, output = python(f"""
sys.path.insert(0, {str(tmp_path)!r})
import mmgn, torch
mmgn.FusedGN(32)(torch.randn(1, 32, 2, 2))
""")
    assert status == 0, output
    assert "does not import (MMCV==2.2.0 is used but incompatible)" in output
