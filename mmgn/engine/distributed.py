"""The process group of a run, opened before the runner is built.

mmengine opens the group itself, but on GPUs alone; it finds this one open and goes on with it.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import timedelta

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.device import get_device
from torch.distributed.rendezvous import rendezvous

#: Seconds that a collective waits for the slowest rank, where ``env_cfg.dist_cfg`` has no timeout; torch's for NCCL.
COLLECTIVE_TIMEOUT = 600


class LaunchError(RuntimeError):
    """Processes that cannot start or find each other: which, why, and the way out."""


def rdzv_timeout() -> float:
    """Return how many seconds the ranks, and the machines, of a run wait for each other to appear: RDZV_TIMEOUT."""
    text = os.environ.get("RDZV_TIMEOUT") or "45"
    try:
        return float(text)
    except ValueError:
        raise LaunchError(f"RDZV_TIMEOUT is in seconds, got {text!r}") from None


def start(cfg: Config) -> None:
    """Open the process group that ``cfg.launcher`` asks for: over NCCL on GPUs, over gloo where there are none.

    ``env_cfg.dist_cfg`` may have a ``backend`` other than NCCL, a ``timeout`` of the collectives in seconds, and for
    Slurm a ``port``.

    Args:
        cfg: without a GPU it is changed in place: the model's wrapper then is given no device.

    Raises:
        LaunchError: a GPU or the launcher's variables are missing, or the other ranks.
    """
    launcher = cfg.get("launcher") or "none"
    dist_cfg = (cfg.get("env_cfg") or {}).get("dist_cfg") or {}
    # Other accelerators, and other packages' start-up, are mmengine's business.
    ours = get_device() in ("cpu", "cuda") and dist_cfg.get("init_backend", "torch") == "torch"
    if launcher == "none" or dist.is_initialized() or not ours:
        return
    os.environ.update(rank_variables(launcher, os.environ, dist_cfg.get("port")))
    rank, local_rank = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    check_gpu(local_rank)
    backend = dist_cfg.get("backend", "nccl")
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank)
    else:
        backend = "gloo"
        wrap_without_device(cfg)
        if rank == 0:
            print(f"no GPU: {os.environ['WORLD_SIZE']} ranks on the CPU, over gloo", file=sys.stderr)
    _open(backend, dist_cfg.get("timeout") or COLLECTIVE_TIMEOUT)


def rank_variables(launcher: str, environ: Mapping[str, str], port: int | None = None) -> dict[str, str]:
    """Return RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT as a launcher's own variables have them.

    Args:
        launcher: pytorch, slurm or mpi (Open MPI).
        environ: the environment of a rank.
        port: of the master under Slurm, where MASTER_PORT is not set.

    Raises:
        LaunchError: the launcher has not started this process, or does not tell the master's address.
    """
    names = {
        "pytorch": ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
        "slurm": ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS"),
        "mpi": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_SIZE"),
    }[launcher]
    missing = [name for name in names if name not in environ]
    if missing:
        starter = {"pytorch": "torchrun, as tools/dist_train.sh does", "slurm": "srun", "mpi": "mpirun"}[launcher]
        raise LaunchError(
            f"--launcher {launcher} finds no {', '.join(missing)} in the environment: start the processes with "
            f"{starter}; a single one needs no --launcher"
        )
    found = dict(zip(("RANK", "LOCAL_RANK", "WORLD_SIZE"), (environ[name] for name in names), strict=False))
    if launcher == "pytorch":
        return found
    found["MASTER_ADDR"] = environ.get("MASTER_ADDR") or _first_host(launcher, environ)
    # Steps of one job on a node share the job's port; jobs beside each other do not.
    default = 15000 + int(environ.get("SLURM_JOB_ID", 0)) % 10000 if launcher == "slurm" else 29500
    found["MASTER_PORT"] = environ.get("MASTER_PORT") or str(port or default)
    return found


def _first_host(launcher: str, environ: Mapping[str, str]) -> str:
    """The machine of rank 0."""
    if launcher == "mpi":
        if environ.get("OMPI_COMM_WORLD_LOCAL_SIZE") == environ["OMPI_COMM_WORLD_SIZE"]:
            return "127.0.0.1"
        raise LaunchError("Open MPI does not tell where rank 0 runs: set MASTER_ADDR, as in mpirun -x MASTER_ADDR=HOST")
    nodes = environ.get("SLURM_STEP_NODELIST") or environ.get("SLURM_NODELIST", "")
    if nodes and not set(nodes).intersection("[,"):
        return nodes
    try:
        names = subprocess.run(["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise LaunchError(
            f"cannot tell the first of the nodes {nodes!r} ({error}): set MASTER_ADDR to it, which in a batch script "
            "is $(scontrol show hostnames $SLURM_JOB_NODELIST | head -n 1)"
        ) from None
    return names.stdout.split()[0]


def check_gpu(local_rank: int) -> None:
    """Check that a rank has a GPU, unless the machine has none at all.

    Args:
        local_rank: the rank's number on this machine.

    Raises:
        LaunchError: it has none.
    """
    count, visible = torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES")
    if local_rank < count:
        return
    host = socket.gethostname()
    if count:
        raise LaunchError(
            f"local rank {local_rank} has no GPU on {host}: {count} there (CUDA_VISIBLE_DEVICES={visible or 'unset'}); "
            f"start at most {count} on this machine. Slurm's --gpus-per-task and --gpu-bind hide the others' GPUs: use "
            "--gres, as tools/slurm_train.sh does"
        )
    if visible and (visible[0].isdigit() or visible.startswith(("GPU-", "MIG-"))):
        raise LaunchError(
            f"CUDA_VISIBLE_DEVICES={visible} asks for GPUs, but torch {torch.__version__} sees none on {host}: see "
            "nvidia-smi for the driver; unset the variable to run on the CPU"
        )


def wrap_without_device(cfg: Config) -> None:
    """Have DDP take the model where it is; mmengine would name it a GPU."""
    wrapper = cfg.get("model_wrapper_cfg")
    if wrapper is None:
        unused = cfg.get("find_unused_parameters", False)
        wrapper = dict(type="MMDistributedDataParallel", broadcast_buffers=False, find_unused_parameters=unused)
        cfg.model_wrapper_cfg = wrapper
    if wrapper.get("type", "DistributedDataParallel").endswith("DistributedDataParallel"):
        cfg.model_wrapper_cfg.device_ids = None


def _open(backend: str, timeout: float) -> None:
    rank, addr, port = int(os.environ["RANK"]), os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    seconds = rdzv_timeout()
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        if rank == 0:
            check_port(port, "MASTER_PORT")
        else:
            wait_for_master(addr, port, seconds)
    try:
        store, rank, size = next(rendezvous("env://", timeout=timedelta(seconds=seconds)))
        dist.init_process_group(
            backend, store=store, rank=rank, world_size=size, timeout=timedelta(seconds=float(timeout))
        )
        store.set_timeout(timedelta(seconds=float(timeout)))
    except dist.DistError as error:
        raise LaunchError(
            f"rank {rank} did not find all {os.environ['WORLD_SIZE']} ranks at {addr}:{port} within {seconds:g} s "
            f"({first_line(error)}): see the others' output; RDZV_TIMEOUT=SECONDS waits longer"
        ) from error


def check_port(port: int, variable: str) -> None:
    """Check that this machine can listen on a port.

    Args:
        port: the port.
        variable: the environment variable that sets it.

    Raises:
        LaunchError: it cannot, as where another job does.
    """
    try:
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(("", port))
    except (OSError, OverflowError) as error:
        with socket.socket() as server:
            server.bind(("", 0))
            free = server.getsockname()[1]
        raise LaunchError(
            f"cannot listen on port {port} of {socket.gethostname()}: {getattr(error, 'strerror', None) or error}. Set "
            f"{variable} to a free port, such as {free}, for every machine of this run, or stop what has the port"
        ) from None


def wait_for_master(addr: str, port: int, seconds: float) -> None:
    """Wait until the master's port answers.

    Raises:
        LaunchError: it does not within ``seconds``; the message has what the last attempt met.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((addr, port), timeout=max(1, min(5, end - time.monotonic()))).close()
            return
        except OSError as error:
            if time.monotonic() >= end:
                raise LaunchError(
                    f"no answer from the master, {addr}:{port}, to {socket.gethostname()} within {seconds:g} s "
                    f"({error}): check that rank 0's machine has that address, that its command runs with that port, "
                    "and that no firewall is between; RDZV_TIMEOUT=SECONDS waits longer"
                ) from None
        time.sleep(0.5)


def first_line(error: BaseException) -> str:
    """Return what an error says, without what torch appends, such as frames of C++."""
    return str(error).strip().partition("\n")[0]
