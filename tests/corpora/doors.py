"""The doors by which a file comes in that may hold a pickle: what reads it in this process, and the tools."""

import pickle

import gadgets
from mmengine.runner import CheckpointLoader

from mmgn.compat import checkpoint
from mmgn.compat.checkpoint import CheckpointError
from mmgn.engine.data_code import check_runs_nothing
from mmgn.evaluation.dumps import read_dump
from mmgn.weights import read_checkpoint, safe_pickle

checkpoint.install()


def load(path):
    CheckpointLoader.load_checkpoint(str(path), map_location="cpu", logger="silent")


#: Name -> what reads a file, the formats that it may be in, and what it raises.
DOORS = {
    "CheckpointLoader": (load, tuple(gadgets.FORMATS), CheckpointError),
    "read_checkpoint": (read_checkpoint, tuple(gadgets.FORMATS), CheckpointError),
    "safe_pickle": (lambda path: safe_pickle.load(path.open("rb")), ("pickle",), pickle.UnpicklingError),
    "read_dump": (read_dump, ("pickle",), ValueError),
    "ann_file": (lambda path: check_runs_nothing({"ann_file": str(path)}, "dataset"), ("pickle",), ValueError),
}


CONFIG = "digits/mask-rcnn_r18-mini_fpn_fusedgn-all_digits.py"

#: Name -> a tool and its arguments.
TOOLS = {
    "--resume": ("train.py", CONFIG, "--skip-preflight", "--resume", "{pth}"),
    "load_from": ("train.py", CONFIG, "--skip-preflight", "--cfg-options", "load_from={pth}"),
    "init_cfg": (
        *("train.py", CONFIG, "--skip-preflight", "--cfg-options"),
        *("model.backbone.init_cfg.type=Pretrained", "model.backbone.init_cfg.checkpoint={pth}"),
    ),
    "proposal_file": ("train.py", CONFIG, "--cfg-options", "train_dataloader.dataset.proposal_file={pkl}"),
    "test.py": ("test.py", CONFIG, "{pth}"),
    "test.py's ann_file": ("test.py", CONFIG, "{pth}", "--cfg-options", "test_evaluator.ann_file={pkl}"),
    "predict.py": ("predict.py", CONFIG, "{pth}", "data/digits/val", "--out", "predicted", "--device", "cpu"),
    "convert_checkpoint.py": ("convert_checkpoint.py", "{pth}", "converted.pth"),
    "convert_checkpoint.py, a pickle": ("convert_checkpoint.py", "{pkl}", "converted.pth"),
    "eval_results.py": ("eval_results.py", "{pkl}", "--ann-file", "data/digits/annotations/instances_val.json"),
    "report.py": (
        *("report.py", "{pkl}", "--ann-file", "data/digits/annotations/instances_val.json"),
        *("--img-dir", "data/digits/val", "--out", "report"),
    ),
}


def command(door, raw, folder):
    """Write a pickle into a folder as what a tool takes; returns the tool and its arguments."""
    (folder / "x.pth").write_bytes(gadgets.as_zip(raw))
    (folder / "x.pkl").write_bytes(raw)
    tool, *args = (arg.format(pth=folder / "x.pth", pkl=folder / "x.pkl") for arg in TOOLS[door])
    if tool in ("train.py", "test.py"):
        args[1:1] = ["--work-dir", str(folder / "work")]
    return tool, *args
