"""The start of a group of processes, and that group norm needs nothing from the others."""

import os
import runpy
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmgn.engine import distributed, torchrun

CLASSIFIER = Path(__file__).parent / "classifier_rank.py"
#: Of ranks on the CPU, wherever the tests run.
ENVIRON = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}


def on_ranks(tmp_path, norm, ranks):
    """What the classifier's training gives on ranks that torchrun starts."""
    out = tmp_path / "found.pt"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=localhost"]
    command.append(f"--nproc-per-node={ranks}")
    subprocess.run([*command, CLASSIFIER, norm, "pytorch", out], env=ENVIRON, check=True, timeout=300)
    return torch.load(out)


def alone(norm):
    classifier = runpy.run_path(str(CLASSIFIER))
    return classifier["train"](classifier["NORMS"][norm])


def largest_difference(one, other):
    pairs = zip(one[1], other[1], strict=True)
    grads = max((a - b).abs().max() for step in pairs for a, b in zip(*step, strict=True))
    return (one[0] - other[0]).abs().max(), grads


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_with_group_norm_train_as_one_process(tmp_path, ranks):
    losses, grads = largest_difference(on_ranks(tmp_path, "GN", ranks), alone("GN"))
    assert losses < 1e-12
    assert grads < 1e-12


def test_ranks_with_batch_norm_do_not(tmp_path):
    losses, grads = largest_difference(on_ranks(tmp_path, "BN", 2), alone("BN"))
    assert losses > 1e-3
    assert grads > 1e-3


def free_port():
    with socket.socket() as server:
        server.bind(("", 0))
        return server.getsockname()[1]


def test_open_mpis_ranks_find_each_other(tmp_path):
    port, out = str(free_port()), tmp_path / "found.pt"
    sizes = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_SIZE": "2", "MASTER_PORT": port, "RDZV_TIMEOUT": "200"}
    ranks = [
        subprocess.Popen(
            [sys.executable, CLASSIFIER, "GN", "mpi", out],
            env={**ENVIRON, **sizes, "OMPI_COMM_WORLD_RANK": rank, "OMPI_COMM_WORLD_LOCAL_RANK": rank},
        )
        for rank in "10"
    ]
    assert [rank.wait(timeout=300) for rank in ranks] == [0, 0]
    assert max(largest_difference(torch.load(out), alone("GN"))) < 1e-12


def test_a_rank_without_its_master_ends_with_one_line(tmp_path):
    port = free_port()
    step = dict(SLURM_PROCID="1", SLURM_LOCALID="1", SLURM_NTASKS="2", SLURM_NODELIST="localhost")
    rank = subprocess.run(
        [sys.executable, CLASSIFIER, "GN", "slurm", tmp_path / "found.pt"],
        env={**ENVIRON, **step, "MASTER_PORT": str(port), "RDZV_TIMEOUT": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert rank.returncode == 1
    said = f"rank 1 on {socket.gethostname()}: classifier_rank.py: no answer from the master, localhost:{port}"
    assert rank.stderr.splitlines()[-1].startswith(said)
    assert "Traceback" not in rank.stderr


SLURM = dict(SLURM_PROCID="5", SLURM_LOCALID="1", SLURM_NTASKS="8", SLURM_NODELIST="gpu1", SLURM_JOB_ID="1234567")


@pytest.mark.parametrize(
    ("environ", "port", "addr", "master_port"),
    [
        (SLURM, None, "gpu1", "19567"),
        (SLURM, 29555, "gpu1", "29555"),
        ({**SLURM, "MASTER_PORT": "29566", "MASTER_ADDR": "10.0.0.1"}, 29555, "10.0.0.1", "29566"),
        # A step on part of the job's nodes: rank 0 is on the step's first.
        ({**SLURM, "SLURM_NODELIST": "gpu[1-4]", "SLURM_STEP_NODELIST": "gpu3"}, None, "gpu3", "19567"),
    ],
)
def test_slurms_variables(environ, port, addr, master_port):
    assert distributed.rank_variables("slurm", environ, port) == {
        "RANK": "5",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "8",
        "MASTER_ADDR": addr,
        "MASTER_PORT": master_port,
    }


def test_several_slurm_nodes_ask_scontrol(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    environ = {**SLURM, "SLURM_NODELIST": "gpu[3,5-6]"}
    with pytest.raises(distributed.LaunchError, match=r"first of the nodes 'gpu\[3,5-6\]'.*set MASTER_ADDR"):
        distributed.rank_variables("slurm", environ)
    scontrol = tmp_path / "scontrol"
    scontrol.write_text('#!/bin/sh\n[ "$*" = "show hostnames gpu[3,5-6]" ] && printf "gpu3\\ngpu5\\ngpu6\\n"\n')
    scontrol.chmod(0o755)
    assert distributed.rank_variables("slurm", environ)["MASTER_ADDR"] == "gpu3"


@pytest.mark.parametrize(
    ("launcher", "environ", "said"),
    [
        ("pytorch", {}, "no RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT .* torchrun"),
        ("slurm", {"SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, "no SLURM_NTASKS in the environment.* with srun"),
        ("mpi", {}, "no OMPI_COMM_WORLD_RANK.* with mpirun"),
        (
            "mpi",
            {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_LOCAL_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"},
            "set MASTER_ADDR",
        ),
    ],
)
def test_a_process_that_no_launcher_started_is_told(launcher, environ, said):
    with pytest.raises(distributed.LaunchError, match=said):
        distributed.rank_variables(launcher, environ)


@pytest.mark.parametrize("count", [1, 2])
def test_more_ranks_than_gpus_are_told(monkeypatch, count):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    distributed.check_gpu(count - 1)
    with pytest.raises(distributed.LaunchError, match=f"start at most {count} on this machine"):
        distributed.check_gpu(count)
    with pytest.raises(distributed.LaunchError, match=f"start at most {count} on this machine"):
        torchrun.options(str(count + 1), {})


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch sees a GPU here")
def test_gpus_asked_for_where_torch_sees_none_are_told(monkeypatch):
    for hidden in ("", "-1", "NoDevFiles"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        distributed.check_gpu(3)
    for wanted in ("0,1", "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", wanted)
        with pytest.raises(distributed.LaunchError, match=f"CUDA_VISIBLE_DEVICES={wanted} asks for GPUs"):
            distributed.check_gpu(0)


@pytest.mark.parametrize(
    ("gpus", "variables", "said"),
    [
        ("two", {}, "GPUS must be a whole number of at least 1, got 'two'"),
        ("0", {}, "GPUS must be a whole number of at least 1, got '0'"),
        ("1", {"PORT": "http"}, "PORT must be a whole number"),
        ("1", {"NNODES": "2:1"}, "NNODES must be a whole number of at least 2, got '1'"),
        ("1", {"NNODES": "2", "NODE_RANK": "2"}, "NODE_RANK counts from 0 to NNODES - 1 = 1, got 2"),
        ("1", {"PORT": "70000"}, "cannot listen on port 70000"),
    ],
)
def test_values_that_are_none_are_told(gpus, variables, said):
    with pytest.raises(distributed.LaunchError, match=said):
        torchrun.options(gpus, variables)


def test_one_machine_needs_no_port():
    assert torchrun.options("1", {}) == ["--nproc-per-node=1", "--standalone", "--local-addr=localhost"]


def test_a_fixed_number_of_machines_keeps_its_ranks_and_a_range_is_elastic():
    port = free_port()
    variables = {"NNODES": "2", "MASTER_ADDR": "localhost", "PORT": str(port)}
    fixed = torchrun.options("1", variables)
    assert {"--nnodes=2", "--node-rank=0", f"--master-port={port}", "--master-addr=localhost"} < set(fixed)
    elastic = torchrun.options("1", {**variables, "NNODES": "1:2"})
    assert {"--nnodes=1:2", "--rdzv-backend=c10d", f"--rdzv-endpoint=localhost:{port}"} < set(elastic)


def test_the_runners_wrapper_names_no_gpu_where_there_is_none():
    for given in ({}, {"model_wrapper_cfg": {"type": "MMDistributedDataParallel", "bucket_cap_mb": 5}}):
        cfg = Config(given)
        distributed.wrap_without_device(cfg)
        assert cfg.model_wrapper_cfg.device_ids is None
        assert cfg.model_wrapper_cfg.type == "MMDistributedDataParallel"
    assert cfg.model_wrapper_cfg.bucket_cap_mb == 5
