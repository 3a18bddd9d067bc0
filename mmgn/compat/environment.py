"""What a run or a bug report has to say about the machine and the packages it ran on."""

import importlib
import importlib.util
import os
import platform
import re
import shutil
import sys
import sysconfig
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from mmgn.compat import checkpoint, flops, mmcv_ops, packages
from mmgn.version import __version__

_PACKAGES = ("torchvision", "triton", "mmengine", "mmcv", "mmdet", "mmpretrain", "mmseg")
_WAYS_OUT = {
    "libGL": "`apt install libgl1`, or opencv-python-headless in place of opencv-python",
    "MMCV==": "`pip install 'mmcv-lite>=2.0.1,<2.2'`, or mmcv of that range",
    "No module named 'mmdet'": "`pip install 'mmdet>=3.3,<4'`",
    "No module named 'mmcv'": "`pip install 'mmcv-lite>=2.0.1,<2.2'`",
    "No module named 'mmengine'": "`pip install 'mmengine>=0.10.4'`",
    "No module named 'cv2'": "`pip install opencv-python-headless`",
}


def collect() -> dict[str, Any]:
    """Collect the report as plain data, fit for JSON; ``None`` stands for what is not there.

    Returns:
        ``mmgn``, ``python``, ``system``, ``torch``, ``packages`` (distribution, version, upstream or fork),
        ``gpu`` (driver, devices), ``triton`` (what its launcher needs), ``mmcv_ops`` (what runs each op),
        ``patches`` (which are active and why) and ``clashes``, each with its way out.
    """
    gpu, triton = _gpu(), _triton()
    return {
        "mmgn": __version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": {
            "os": platform.platform(),
            "cpu": cpu_name(),
            "cores": len(os.sched_getaffinity(0)),
            "ram_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        },
        "torch": str(torch.__version__),
        "packages": {name: _package(name) for name in _PACKAGES},
        "gpu": gpu,
        "triton": triton,
        "mmcv_ops": mmcv_ops.served_ops(),
        "patches": _patches(),
        "clashes": _clashes(gpu, triton),
    }


def cpu_name() -> str:
    """Return the processor's name, its architecture where the system does not tell it."""
    return _match(r"model name\s*:\s*(.+)", "/proc/cpuinfo") or platform.machine()


def format_text(env: dict[str, Any]) -> str:
    """Format what ``collect`` returns for people: a line per fact, a heading per group."""
    lines = []
    for group, facts in env.items():
        if isinstance(facts, dict):
            lines += [group, *(f"  {name:<18} {_said(fact)}" for name, fact in facts.items())]
        elif isinstance(facts, list):
            lines += [group, *(f"  {fact}" for fact in facts or ["none"])]
        else:
            lines.append(f"{group:<20} {_said(facts)}")
    return "\n".join(lines)


def _said(fact: Any) -> str:
    if fact is None or isinstance(fact, bool):
        return "yes" if fact else "absent"
    return "; ".join(fact) or "none" if isinstance(fact, list) else str(fact)


def _match(pattern: str, path: str) -> str | None:
    try:
        found = re.search(pattern, Path(path).read_text())
    except OSError:
        return None
    return found[1] if found else None


def _package(name: str) -> str | None:
    owners = packages.owners_of(name)
    if not owners:
        # A source checkout on PYTHONPATH has no metadata.
        return "of unknown version" if importlib.util.find_spec(name) else None
    origin = "upstream" if packages.fork_of(name) == "upstream" else "fork"
    return " and ".join(f"{owner} {metadata.version(owner)}" for owner in owners) + f" ({origin})"


def _gpu() -> dict[str, Any]:
    devices = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        device = torch.cuda.get_device_properties(index)
        memory = device.total_memory / 2**30
        devices.append(f"{device.name}, capability {device.major}.{device.minor}, {memory:.0f} GiB")
    return {
        "driver": _match(r"NVRM version:.*?\s(\d+\.[\d.]+)\s", "/proc/driver/nvidia/version"),
        "devices": devices,
    }


def _triton() -> dict[str, Any]:
    # Triton compiles its launcher at run time, looking for these two in these places.
    include = sysconfig.get_path("include", "posix_prefix")
    return {
        "package": importlib.util.find_spec("triton") is not None,
        "c_compiler": os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang"),
        "python_headers": include if Path(include, "Python.h").is_file() else None,
    }


def _patches() -> dict[str, str]:
    if importlib.util.find_spec("mmengine") is None:
        return dict.fromkeys(("checkpoint", "packages", "flops"), "inactive: there is no mmengine")
    try:
        loads, looks_up = checkpoint.active(), packages.active()
    except Exception as error:
        return dict.fromkeys(("checkpoint", "packages", "flops"), f"inactive: mmengine does not import ({error})")
    there = importlib.util.find_spec("pkg_resources") is not None
    why_not = "pkg_resources is there" if there else "this mmengine does without pkg_resources"
    return {
        "checkpoint": "active: always" if loads else "inactive: mmgn.compat.checkpoint.install() has not run",
        "packages": "active: pkg_resources is missing" if looks_up else f"inactive: {why_not}",
        "flops": "active: mmcv counts exact classes only" if flops.active() else "inactive: there is no mmcv",
    }


def _clashes(gpu: dict[str, Any], triton: dict[str, Any]) -> list[str]:
    clashes = [
        f"{' and '.join(owners)} share the folder {name}: uninstall both, then install the one you want."
        for name in _PACKAGES
        if len(owners := packages.owners_of(name)) > 1
    ]
    # In the order in which one imports the next; past the first failure the others say nothing new.
    for name in ("cv2", "mmengine", "mmcv", "mmdet"):
        try:
            importlib.import_module(name)
        except Exception as error:
            ways_out = [way for sign, way in _WAYS_OUT.items() if sign in str(error)]
            clashes.append("; the way out: ".join([f"import {name} fails: {str(error).rstrip('.')}", *ways_out]))
            break
    if torch.__version__ < "2.10":
        clashes.append(
            f"torch {torch.__version__} has a hole in weights-only loading itself (CVE-2026-24747): "
            "load only checkpoints you trust, or upgrade to torch 2.10."
        )
    if gpu["driver"] and not gpu["devices"]:
        clashes.append(
            f"torch {torch.__version__} sees no GPU, though there is an NVIDIA driver ({gpu['driver']}): install "
            "a torch built for a CUDA that this driver runs, or unset CUDA_VISIBLE_DEVICES."
        )
    lacking = [what for what, there in triton.items() if not there]
    if gpu["devices"] and lacking:
        clashes.append(
            f"Triton cannot launch FusedGN's kernels for lack of {', '.join(lacking)}: install triton, gcc "
            "and Python's headers (python3-dev)."
        )
    return clashes
