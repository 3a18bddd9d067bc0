"""torchrun behind mmdet's variables, with what can be checked before the ranks start, and one error where one fails.

Used by tools/dist_train.sh and tools/dist_test.sh: ``python -m mmgn.engine.torchrun GPUS SCRIPT ARGS...``. torchrun's
own settings go by its environment variables, such as PET_MAX_RESTARTS.
"""

import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

import torch.distributed as dist
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousConnectionError, RendezvousError
from torch.distributed.run import parse_args, run

from mmgn.engine.distributed import LaunchError, check_gpu, check_port, first_line, rdzv_timeout, wait_for_master


def options(gpus: str, environ: Mapping[str, str]) -> list[str]:
    """Return torchrun's options for mmdet's variables, once the master's port is known to be free, or to answer.

    One machine picks a port by itself unless PORT is given. A fixed number of machines keeps mmdet's meaning of
    NODE_RANK: rank 0 runs on machine 0. ``NNODES=MIN:MAX`` is elastic: machines may leave and join.

    Args:
        gpus: processes on this machine.
        environ: with NNODES, NODE_RANK, MASTER_ADDR and PORT.

    Raises:
        LaunchError: a value that is none, more GPUs than there are, a port that is taken, a master that is silent.
    """
    processes = _number("GPUS", gpus, 1)
    check_gpu(processes - 1)
    local = [f"--nproc-per-node={processes}"]
    nnodes, node_rank = environ.get("NNODES") or "1", _number("NODE_RANK", environ.get("NODE_RANK") or "0", 0)
    least, _, most = nnodes.partition(":")
    _number("NNODES", least, 1)
    machines = _number("NNODES", most or least, int(least))
    if machines == 1 and not environ.get("PORT"):
        # By its own name a machine may not be found, as in a container.
        return [*local, "--standalone", "--local-addr=localhost"]
    if node_rank >= machines:
        raise LaunchError(f"NODE_RANK counts from 0 to NNODES - 1 = {machines - 1}, got {node_rank}")
    addr, port = environ.get("MASTER_ADDR") or "127.0.0.1", _number("PORT", environ.get("PORT") or "29500", 1)
    seconds = rdzv_timeout()
    if node_rank == 0:
        check_port(port, "PORT")
        if machines > 1:
            print(f"waiting {seconds:g} s for {nnodes} machines at {addr}:{port}", file=sys.stderr)
    else:
        wait_for_master(addr, port, seconds)
    local.append(f"--nnodes={nnodes}")
    if most:
        conf = f"is_host={node_rank == 0},read_timeout={seconds:.0f},join_timeout={seconds:.0f}"
        rdzv = ["--rdzv-backend=c10d", "--rdzv-id=mmgn", f"--rdzv-endpoint={addr}:{port}", f"--rdzv-conf={conf}"]
        return [*local, *rdzv]
    master = [f"--master-addr={addr}", f"--master-port={port}", f"--node-rank={node_rank}"]
    return [*local, *master, f"--rdzv-conf=timeout={seconds:.0f}"]


def _number(name: str, text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise LaunchError(f"{name} must be a whole number of at least {least}, got {text!r}")
    return int(text)


def _reason(error: BaseException) -> str:
    return first_line(error.__cause__ or error)


def explain(error: ChildFailedError) -> str:
    """Return which rank failed first, and why, for a person to read."""
    rank, failure = error.get_first_failure()
    who = f"rank {rank} (local rank {failure.local_rank}, process {failure.pid} on {socket.gethostname()})"
    others = "The other ranks on this machine were stopped."
    if Path(error.name).stem == "train":
        others += " From the last checkpoint, if there is one, --resume goes on."
    if isinstance(failure.message, dict):
        return f"{who} failed:\n{failure.message['extraInfo']['py_callstack']}\n\n{others}"
    if failure.exitcode == -signal.SIGKILL:
        return f"{who} was killed by SIGKILL, as the kernel does where memory ends (see dmesg). {others}"
    if failure.exitcode < 0:
        return f"{who} was ended by {failure.signal_name()}. {others}"
    return f"{who} exited with status {failure.exitcode}; its output tells why. {others}"


def main() -> None:
    """Run a script in GPUS processes on this machine."""
    gpus, *command = sys.argv[1:]
    name = f"dist_{Path(command[0]).stem}.sh"
    try:
        run(parse_args([*options(gpus, os.environ), *command]))
    except LaunchError as error:
        raise SystemExit(f"{name}: {error}") from None
    except ChildFailedError as error:
        raise SystemExit(f"{name}: {explain(error)}") from None
    except RendezvousConnectionError as error:
        raise SystemExit(
            f"{name}: the rendezvous, which machine 0 keeps, does not answer ({_reason(error)}): the output of the "
            "command with NODE_RANK=0 tells why"
        ) from None
    except (dist.DistError, RendezvousError) as error:
        raise SystemExit(
            f"{name}: the {os.environ.get('NNODES', 1)} machines did not find each other within {rdzv_timeout():g} s "
            f"({_reason(error)}): run the same command on each, with its own NODE_RANK; RDZV_TIMEOUT=SECONDS waits "
            "longer"
        ) from None
    except SignalException as error:
        print(f"{name}: stopped by {error.sigval.name}", file=sys.stderr)
        raise SystemExit(128 + error.sigval) from None


if __name__ == "__main__":
    main()
