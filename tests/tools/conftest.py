import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture(scope="session")
def run_tool():
    """Run a tool in a folder, as a person does; returns the exit status and all it printed.

    Of the keywords, env is added to the environment, and timeout is in seconds.
    """

    def run(cwd, name, *args, env=None, timeout=None):
        result = subprocess.run(
            [sys.executable, str(TOOLS / name), *map(str, args)],
            cwd=cwd,
            # Two tools side by side on two cores, each with two threads, are many times slower.
            env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
            timeout=timeout,
            capture_output=True,
            text=True,
        )
        return result.returncode, result.stdout + result.stderr

    return run


@pytest.fixture(scope="session")
def fitted(tmp_path_factory):
    """A folder with data/digits, and fitted.pth: the digits' model after 40 steps on the four validation images."""
    pytest.importorskip("mmdet")
    import torch
    from mmengine.optim import build_optim_wrapper
    from mmengine.runner import Runner

    from mmgn.datasets.digits import make_digits
    from mmgn.engine.config import load_config
    from mmgn.engine.model import build_model

    folder = tmp_path_factory.mktemp("fitted")
    make_digits(folder / "data/digits", num_train=8, num_val=4)
    cfg = load_config("digits/mask-rcnn_r18-mini_fpn_fusedgn-all_digits.py")
    torch.manual_seed(0)
    model = build_model(cfg)
    model.init_weights()
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    cfg.train_dataloader.dataset.update(
        data_root=f"{folder}/data/digits/", ann_file="annotations/instances_val.json", data_prefix=dict(img="val/")
    )
    batches = Runner.build_dataloader(cfg.train_dataloader, seed=0)
    optimizer = build_optim_wrapper(model, dict(optimizer=dict(type="AdamW", lr=1e-3)))
    model.train()
    for _ in range(40):
        for batch in batches:
            model.train_step(batch, optimizer)
    meta = {"dataset_meta": batches.dataset.metainfo}
    torch.save({"meta": meta, "state_dict": model.state_dict()}, folder / "fitted.pth")
    return folder


@pytest.fixture
def saved(fitted, tmp_path, call_tool):
    """The work directory of a test of fitted.pth, its out.pkl too."""
    folder = fitted / "saved"
    if not folder.exists():
        config = "digits/mask-rcnn_r18-mini_fpn_fusedgn-all_digits.py"
        flags = ["--work-dir", tmp_path, "--out", tmp_path / "out.pkl"]
        here = ["--cfg-options", "test_dataloader.num_workers=0", "test_dataloader.persistent_workers=False"]
        status, output = call_tool(fitted, "test.py", config, "fitted.pth", *flags, *here)
        assert status == 0, output
        shutil.copytree(tmp_path, folder)
    return folder
