"""At run time mmgn opens no connection but for weights that a config names, COCO's download, and other ranks."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from mmgn.datasets.digits import make_digits

ROOT = Path(__file__).parents[1]
CONFIG = "digits/mask-rcnn_r18-mini_fpn_fusedgn-all_digits.py"
#: Of the standard library and the packages that come along, what opens connections.
NETWORK = {"socket", "http", "urllib.request", "ftplib", "smtplib", "requests", "httpx", "aiohttp", "huggingface_hub"}
OPENS = {
    "mmgn/compat/download.py": "weights that a config names, by torch.hub",
    "mmgn/datasets/transfer.py": "tools/download_coco.py",
    "mmgn/engine/distributed.py": "ranks of one training",
    "mmgn/engine/rank_error.py": "this host's name",
    "mmgn/engine/torchrun.py": "this host's name",
}


def opens_connections(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Attribute) and node.attr in ("download_url_to_file", "load_state_dict_from_url"):
            return True
        else:
            continue
        if any(name == module or name.startswith(f"{module}.") for name in names for module in NETWORK):
            return True
    return False


def test_these_modules_alone_can_open_a_connection():
    paths = [*ROOT.glob("mmgn/**/*.py"), *ROOT.glob("tools/*.py")]
    assert {str(path.relative_to(ROOT)) for path in paths if opens_connections(path)} == set(OPENS)


def run_offline(folder, *commands):
    """Run tools without a network; returns the exit status, what they printed, and what they tried to reach."""
    # Its own network, which has no device; where that is not allowed, Python's own calls are denied all the same.
    ways = (["unshare", "--net"], ["unshare", "--net", "--map-root-user"])
    alone = next(
        (
            way
            for way in ways
            if shutil.which(way[0]) and not subprocess.call([*way, "true"], stderr=subprocess.DEVNULL)
        ),
        [],
    )
    log = folder / "reached.txt"
    commands = json.dumps([[str(ROOT / "tools" / name), *map(str, args)] for name, *args in commands])
    done = subprocess.run(
        [*alone, sys.executable, str(Path(__file__).with_name("offline_tools.py")), str(log), commands],
        cwd=folder,
        # A proxy is asked in the place of a host.
        env={k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        | {"OMP_NUM_THREADS": "1", "TORCH_HOME": str(folder / "torch")},
        capture_output=True,
        text=True,
        timeout=500,
    )
    return done.returncode, done.stdout + done.stderr, log.read_text() if log.exists() else ""


def test_training_judging_and_reporting_need_no_network(tmp_path):
    make_digits(tmp_path / "data/digits", num_train=8, num_val=4)
    work_dir = Path("work_dirs/mask-rcnn_r18-mini_fpn_fusedgn-all_digits")
    quick = ["train_cfg.max_epochs=1", "param_scheduler.1.end=2", "default_hooks.logger.interval=1"]
    status, output, reached = run_offline(
        tmp_path,
        ["check_dataset.py", "--config", CONFIG],
        ["train.py", CONFIG, "--cfg-options", *quick],
        ["test.py", CONFIG, work_dir / "epoch_1.pth", "--work-dir", "tested", "--out", "predictions.pkl"],
        ["eval_results.py", "predictions.pkl", "--config", CONFIG],
        ["predict.py", CONFIG, work_dir / "epoch_1.pth", "data/digits/val", "--out", "predicted"],
        ["report.py", work_dir],
        ["swap_norm.py", "mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py", "--out", "swapped.py"],
        ["inspect_norm.py", "swapped.py"],
        ["benchmark.py", "--plan"],
        ["env.py"],
    )
    assert (status, reached) == (0, ""), output[-3000:]
    assert (tmp_path / work_dir / "report/index.html").is_file() and (tmp_path / "swapped.py").is_file()


def test_weights_that_a_config_names_are_what_is_reached_for(tmp_path):
    make_digits(tmp_path / "data/digits", num_train=8, num_val=4)
    status, output, reached = run_offline(
        tmp_path, ["train.py", CONFIG, "--cfg-options", "load_from=http://weights.invalid/r18-0676ba61.pth"]
    )
    assert status != 0 and "train.py: socket.getaddrinfo weights.invalid" in reached, output[-3000:]
