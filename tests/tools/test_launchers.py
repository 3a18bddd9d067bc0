"""The launchers' scripts, with real ranks over gloo on this machine."""

import json
import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from mmgn.datasets.digits import make_digits
from mmgn.engine.config import find_config

TOOLS = Path(__file__).parents[2] / "tools"
CONFIG = """
_base_ = '{base}'
custom_imports = dict(imports=[*_base_.custom_imports.imports, 'rank_hooks'])
custom_hooks = [*_base_.custom_hooks, dict(type='RecordRankHook'){more}]
model = dict(type='{model}')
"""
QUICK = ["--cfg-options", "train_cfg.val_interval=1000"]
# Ranks load their images themselves.
HERE = ["train_dataloader.num_workers=0", "train_dataloader.persistent_workers=False"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Digits with five validation images, which neither two nor four ranks divide; and configs of rank_hooks' parts."""
    cwd = tmp_path_factory.mktemp("launch")
    make_digits(cwd / "data/digits", num_train=8, num_val=5)
    base = find_config("digits/mask-rcnn_r18-mini_fpn_fusedgn-all_digits.py").resolve()
    (cwd / "ranks.py").write_text(CONFIG.format(base=base, more="", model="MaskRCNN"))
    more = ", dict(type='FailingRankHook', rank=1)"
    (cwd / "failing.py").write_text(CONFIG.format(base=base, more=more, model="MaskRCNN"))
    more = ", dict(type='NanRankHook', rank=1)"
    (cwd / "nan.py").write_text(CONFIG.format(base=base, more=more, model="MaskRCNN"))
    # What a few iterations have learned finds nothing, and nothing would tell a shard too few or too many.
    (cwd / "finding.py").write_text(CONFIG.format(base=base, more="", model="ShiftedTruth"))
    # What srun does for the ranks of a step: starts them, and ends all where one fails.
    srun = cwd / "bin/srun"
    srun.parent.mkdir()
    srun.write_text(f"#!{sys.executable}\n" + (Path(__file__).parent / "srun.py").read_text())
    srun.chmod(0o755)
    return cwd


@pytest.fixture(scope="module")
def start(folder):
    """Start a script in a folder as a person does; what it prints comes through a pipe."""
    started = []

    def run(name, *args, **variables):
        path = [str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
        inherited = {k: v for k, v in os.environ.items() if k not in ("PORT", "NNODES", "NODE_RANK", "MASTER_ADDR")}
        process = subprocess.Popen(
            [TOOLS / name, *map(str, args)],
            cwd=folder,
            env={
                **inherited,
                "PATH": os.pathsep.join(path),
                "PYTHONPATH": str(Path(__file__).parent),
                "OMP_NUM_THREADS": "1",
                "CUDA_VISIBLE_DEVICES": "",
                **{k: str(v) for k, v in variables.items()},
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def run(start):
    """Run a script to its end; returns its exit status and all it printed."""

    def finish(*args, **variables):
        process = start(*args, **variables)
        output, _ = process.communicate(timeout=300)
        return process.returncode, output

    return finish


def free_port():
    with socket.socket() as server:
        server.bind(("", 0))
        return server.getsockname()[1]


@pytest.fixture(scope="module")
def trained(folder, start):
    """The work_dir of an epoch on two machines of one rank each, which are two rendezvous agents on loopback."""
    variables = dict(NNODES=2, PORT=free_port(), RDZV_TIMEOUT=200)
    args = ("dist_train.sh", "ranks.py", 1, "--work-dir", "trained", *QUICK, "train_cfg.max_epochs=1")
    machines = [start(*args, NODE_RANK=rank, **variables) for rank in (1, 0)]
    for machine in machines:
        output, _ = machine.communicate(timeout=300)
        assert machine.returncode == 0, output
    return folder / "trained"


def check_one_model(work_dir, ranks):
    """Check that ranks which trained together hold the saved parameters, bit by bit, and norm alike."""
    assert json.loads((work_dir / "run.json").read_text())["train"]["world_size"] == ranks
    first, *others = [torch.load(work_dir / f"rank_{rank}.pt") for rank in range(ranks)]
    saved = torch.load(work_dir / "epoch_1.pth", weights_only=True)["state_dict"]
    assert saved
    assert first["norms"]
    for name, value in saved.items():
        for rank in (first, *others):
            assert torch.equal(rank["params"][name], value), name
    for name, value in first["norms"].items():
        for rank in others:
            assert torch.equal(rank["norms"][name], value), name


def test_two_machines_train_one_model(trained):
    check_one_model(trained, 2)


def test_four_ranks_train_one_model(folder, run):
    # Two updates.
    options = [*QUICK, *HERE, "train_cfg.max_epochs=1", "train_dataloader.batch_size=1"]
    status, output = run("dist_train.sh", "ranks.py", 4, "--work-dir", "four", *options)
    assert status == 0, output
    check_one_model(folder / "four", 4)


def test_a_dry_run_on_two_ranks_is_told_once(folder, run):
    status, output = run("dist_train.sh", "ranks.py", 2, "--dry-run", "--work-dir", "dry", *QUICK, *HERE)
    assert status == 0, output
    assert output.count("dry run of") == 1
    assert "4 images x 2 processes = 8 an update" in output
    assert not (folder / "dry").exists()


def evaluated(folder, name):
    record = json.loads((folder / name / "run.json").read_text())["evaluation"]
    results = [json.loads((folder / name / f"predictions.{kind}.json").read_text()) for kind in ("bbox", "segm")]
    return record["world_size"], record["metrics"], results


@pytest.fixture(scope="module")
def alone(folder, trained, run_tool, monkeypatch_module):
    """What a single process finds."""
    monkeypatch_module.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch_module.setenv("CUDA_VISIBLE_DEVICES", "")
    status, output = run_tool(folder, "test.py", "finding.py", trained / "epoch_1.pth", "--work-dir", "alone")
    assert status == 0, output
    return evaluated(folder, "alone")


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.mark.parametrize("ranks", [2, 4])
def test_uneven_shards_give_what_one_process_finds(folder, trained, alone, run, ranks):
    status, output = run("dist_test.sh", "finding.py", trained / "epoch_1.pth", ranks, "--work-dir", f"on_{ranks}")
    assert status == 0, output
    world_size, metrics, results = evaluated(folder, f"on_{ranks}")
    assert world_size == ranks
    assert 0 < alone[1]["coco/segm_mAP"] < alone[1]["coco/bbox_mAP"] < 1
    assert {r["image_id"] for r in alone[2][0]} == {1, 2, 3, 4, 5}
    assert metrics == alone[1]
    assert results == alone[2]


def test_slurm_tasks_train_and_evaluate(folder, run, alone):
    # A job's own port: beside it other jobs run on the node.
    variables = dict(GPUS=2, GPUS_PER_NODE=2, CPUS_PER_TASK=1, SLURM_JOB_ID=os.getpid())
    args = ("some part", "a job", "ranks.py", "slurm", *QUICK, "train_cfg.max_epochs=1")
    status, output = run("slurm_train.sh", *args, **variables, SRUN_ARGS="--quiet --exact")
    assert status == 0, output
    wanted = "-p 'some part' '--job-name=a job' --gres=gpu:2 --ntasks=2 --ntasks-per-node=2 --cpus-per-task=1"
    assert f"{wanted} --kill-on-bad-exit=1 --quiet --exact" in output
    assert json.loads((folder / "slurm/run.json").read_text())["train"]["world_size"] == 2
    args = ("some part", "a job", "finding.py", "trained/epoch_1.pth", "--work-dir", "slurm")
    status, output = run("slurm_test.sh", *args, **variables)
    assert status == 0, output
    assert evaluated(folder, "slurm")[1:] == alone[1:]


@pytest.mark.parametrize("machines", [1, 2])
def test_a_killed_rank_is_named_and_ends_the_others_within_a_minute(folder, start, machines):
    work_dir, port = folder / f"killed_on_{machines}", free_port()
    args = ("dist_train.sh", "ranks.py", 2 // machines, "--work-dir", work_dir, *QUICK, *HERE)
    variables = [dict(NNODES=2, NODE_RANK=i, PORT=port, RDZV_TIMEOUT=200) for i in (0, 1)] if machines == 2 else [{}]
    started = [start(*args, "train_cfg.max_epochs=1000", **each) for each in variables]
    end = time.monotonic() + 200
    while not (work_dir / "last_checkpoint").is_file():
        assert all(process.poll() is None for process in started), [process.communicate()[0] for process in started]
        assert time.monotonic() < end, "no epoch in 200 seconds"
        time.sleep(0.2)
    pid = int((work_dir / "rank_1.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    end = time.monotonic() + 60
    outputs = [process.communicate(timeout=end - time.monotonic())[0] for process in started]
    assert [process.returncode for process in started] == [1] * machines
    who = f"rank 1 (local rank {2 // machines - 1}, process {pid} on {socket.gethostname()})"
    assert f"dist_train.sh: {who} was killed by SIGKILL" in outputs[-1]
    if machines == 2:
        assert "dist_train.sh: rank 0 (local rank 0" in outputs[0]
        assert "lost the other ranks; the output of the one that failed first tells why" in outputs[0]
    for output in outputs:
        assert "--resume" in output
        assert "Traceback" not in output
    last = Path((work_dir / "last_checkpoint").read_text())
    assert torch.load(last, weights_only=True)["meta"]["epoch"] >= 1


def test_a_rank_that_raises_is_told_once_and_the_checkpoint_stays(folder, run):
    status, output = run("dist_train.sh", "failing.py", 2, "--work-dir", "failing", *QUICK, "train_cfg.max_epochs=3")
    assert status == 1
    assert "dist_train.sh: rank 1 (local rank 1" in output
    assert output.count("Traceback") == 1
    assert output.count("ZeroDivisionError: an error of one rank") == 1
    assert "gloo" not in output[output.index("Traceback") :]
    assert torch.load(folder / "failing/epoch_1.pth", weights_only=True)["meta"]["epoch"] == 1
    assert not (folder / "failing/epoch_2.pth").exists()


@pytest.mark.parametrize(
    ("command", "variables"),
    [
        (("dist_train.sh", "no/such_config.py", 2), {}),
        (("slurm_train.sh", "part", "job", "no/such_config.py", "work"), dict(GPUS=2)),
    ],
    ids=["torchrun", "slurm"],
)
def test_an_error_of_all_ranks_is_told_once(run, command, variables):
    status, output = run(*command, **variables)
    assert status != 0
    assert output.count("'no/such_config.py' does not exist") == 1
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (dict(NNODES=2, NODE_RANK=1, RDZV_TIMEOUT=2), "no answer from the master, 127.0.0.1:{port}"),
        (dict(NNODES=2, NODE_RANK=0, RDZV_TIMEOUT=2), "the 2 machines did not find each other within 2 s"),
        (dict(NNODES="1:2", NODE_RANK=1, RDZV_TIMEOUT=2), "no answer from the master, 127.0.0.1:{port}"),
    ],
    ids=["silent master", "missing machine", "silent elastic master"],
)
def test_machines_that_do_not_meet_are_told(run, variables, said):
    port = free_port()
    status, output = run("dist_train.sh", "ranks.py", 1, PORT=port, **variables)
    assert status == 1
    assert f"dist_train.sh: {said.format(port=port)}" in output
    assert "RDZV_TIMEOUT=SECONDS waits longer" in output
    assert "Traceback" not in output


def test_a_rendezvous_that_is_lost_is_told(run):
    # Closes each connection, as a machine 0 that goes down.
    with socketserver.TCPServer(("", 0), socketserver.BaseRequestHandler) as closing:
        threading.Thread(target=closing.serve_forever, daemon=True).start()
        variables = dict(NNODES="1:2", NODE_RANK=1, PORT=closing.server_address[1], RDZV_TIMEOUT=2)
        status, output = run("dist_train.sh", "ranks.py", 1, **variables)
        closing.shutdown()
    assert status == 1
    assert "dist_train.sh: the rendezvous, which machine 0 keeps, does not answer (" in output
    assert "the command with NODE_RANK=0 tells why" in output
    assert "Traceback" not in output


@pytest.mark.parametrize("variables", [{}, dict(NNODES=2, NODE_RANK=0)], ids=["one machine", "two machines"])
def test_a_busy_port_is_told_before_anything_starts(run, variables):
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        status, output = run("dist_train.sh", "ranks.py", 2, PORT=port, **variables)
    assert status == 1
    assert f"dist_train.sh: cannot listen on port {port} of {socket.gethostname()}: Address already in use" in output
    assert "Set PORT to a free port" in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("dist_train.sh", ["config.py"]),
        ("dist_test.sh", ["config.py", "checkpoint.pth"]),
        ("slurm_train.sh", ["part", "job", "config.py"]),
        ("slurm_test.sh", ["part", "job", "config.py"]),
    ],
)
def test_missing_arguments_show_the_usage(run, name, args):
    status, output = run(name, *args)
    assert status == 2
    assert output.startswith(f"usage: tools/{name} ")


def test_a_loss_that_is_not_finite_on_one_rank_stops_all_and_is_told_once(run):
    status, output = run("dist_train.sh", "nan.py", 2, "--work-dir", "nan", *QUICK, *HERE)
    assert status != 0 and "Traceback" not in output
    (said,) = (line for line in output.splitlines() if "is not finite on rank 1" in line)
    assert said.startswith("train.py: training has stopped after 1 iterations: the loss of iteration 2 ")
    assert "The first module whose output is not finite is neck (FPN)" in said and "data/digits/train/0" in said
