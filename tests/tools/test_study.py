"""tools/study.py: small grids trained, interrupted, gone on with, and handed to launchers."""

import csv
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("mmpretrain")

import torch

from mmgn.datasets.digit_images import make_digit_images
from mmgn.engine.config import find_config
from mmgn.study.record import STARTS

TOOLS = Path(__file__).parents[2] / "tools"
# Neither bash nor sbatch is to take it apart.
SLURM = "100% slurm"
CONFIG = """
_base_ = '{base}'
custom_imports = dict(imports=[*_base_.custom_imports.imports, 'study_hooks'])
custom_hooks = [*_base_.custom_hooks, dict(type='{hook}')]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """32 images, and base configs whose hooks do to some cells what happens to trainings."""
    folder = tmp_path_factory.mktemp("study")
    make_digit_images(folder / "few", lit=False, num_train=32, num_val=10)
    base = find_config("classification/resnet-mini_fusedgn_digits.py").resolve()
    for name, hook in (("failing", "FailingCellsHook"), ("slow", "SlowCellsHook")):
        (folder / f"{name}.py").write_text(CONFIG.format(base=base, hook=hook))
    return folder


@pytest.fixture(scope="module")
def command(folder):
    """Return a study's command line, on the few images for one epoch."""

    def line(out, *args):
        data = [] if "--data" in args else ["--data", folder / "few"]
        config = [] if "--config" in args else ["--config", "classification/resnet-mini_fusedgn_digits.py"]
        groups = [] if "--groups" in args else ["--groups", ""]
        few = [*data, *config, *groups, "--epochs", 1, "--seeds", 1]
        return [sys.executable, TOOLS / "study.py", "classification", "--out", folder / out, *few, *args]

    return line


@pytest.fixture(scope="module")
def environment(folder):
    paths = [str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
    found = {"PATH": os.pathsep.join(paths), "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    return {**os.environ, **found, "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture(scope="module")
def study(folder, command, environment):
    """Run a study to its end; returns its exit status and all it printed."""

    def run(*args, **variables):
        line = list(map(str, command(*args)))
        done = subprocess.run(
            line, cwd=folder, env=environment | variables, capture_output=True, text=True, timeout=300
        )
        return done.returncode, done.stdout + done.stderr

    return run


def rows(folder):
    """Return study.csv's rows by norm, with 4 groups GN4, and batch size."""
    lines = [line for line in (folder / "study.csv").read_text().splitlines() if not line.startswith("#")]
    return {
        (f"{row['norm']}4" if row["num_groups"] == "4" else row["norm"], int(row["batch_size"])): row
        for row in csv.DictReader(lines)
    }


@pytest.fixture(scope="module")
def grid(folder, study):
    """A finished grid: its folder and what it printed."""
    status, output = study("grid", "--norms", "BN*,SyncBN,GN", "--batch-sizes", "8,4", "--groups", "4,1", "--jobs", 2)
    assert status == 0, output
    return folder / "grid", output


def test_a_grid_is_trained_and_told(grid):
    out, output = grid
    found = rows(out)
    done = {key for key, row in found.items() if row["status"] == "done"}
    # BN at the largest batch is there for BN*, and one group is LN.
    assert done == {("BN*", 8), ("BN*", 4), ("GN4", 8), ("GN", 8), ("GN", 4), ("BN", 8), ("LN", 8)}
    assert all(0 <= float(found[key]["top1_error"]) <= 100 for key in done)
    assert all(float(found[key]["train_seconds"]) > 0 for key in done)
    assert [found[key]["iterations"] for key in (("GN", 8), ("GN", 4))] == ["4", "8"]
    assert {found[key]["images"] for key in done} == {"32"}
    assert found["BN*", 4]["start"] == "few_bn_b8_seed0"
    assert {found["SyncBN", size]["status"] for size in (8, 4)} == {"skipped"}
    assert not list(out.glob("few_syncbn*"))
    head = [line for line in (out / "study.csv").read_text().splitlines() if line.startswith("# ")]
    for line in ("# varied: norm (BN*, SyncBN, GN;", "# held: the learning rate by the linear rule", "# added: 1 cell"):
        assert any(told.startswith(line) for told in head), line
    assert "2 cells in parallel" in output
    assert "7 done, 2 skipped" in output
    assert {path.name for path in out.glob("*.png")} == {"batch_sizes.png", "groups.png"}
    assert "SyncBN" in (out / "summary.md").read_text()
    # Each cell's last state stays.
    assert len(list(out.rglob("*.pth"))) == 7


def test_finished_cells_are_kept_when_the_grid_grows(grid, study):
    out, _ = grid
    before = {path: path.stat().st_mtime_ns for path in out.glob("few_*/*") if path.is_file()}
    status, output = study("grid", "--norms", "BN*,GN,IN", "--batch-sizes", "8,4", "--jobs", 1)
    assert status == 0, output
    trained = re.findall(r"^\[\d+/\d+\] (\S+) done", output, re.MULTILINE)
    assert sorted(trained) == ["few_in_b4_seed0", "few_in_b8_seed0"]
    assert f"not asked for, so not in study.csv: 2 other cells in {out}, first few_gn-4g_b8_seed0" in output
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_cells_that_fail_do_not_end_the_grid(folder, study):
    args = ["--config", "failing.py", "--norms", "BN,GN,LN,IN,BN*", "--batch-sizes", "8", "--jobs", 1]
    status, output = study("failing", *args)
    assert status == 1, output
    found = rows(folder / "failing")
    reasons = {norm: (row["status"], row["reason"]) for (norm, _), row in found.items()}
    told = "ValueError: Expected more than 1 value per channel when training, got input size torch.Size([1, 2])"
    assert reasons["BN"] == ("failed", told)
    assert reasons["BN*"] == ("failed", "its BN model, few_bn_b8_seed0, has failed")
    assert reasons["LN"] == ("failed", "the loss became infinite or NaN")
    assert reasons["IN"] == ("failed", "ended by SIGKILL, as the kernel does where memory ends (see dmesg)")
    assert reasons["GN"] == ("done", "")
    assert "Traceback" in (folder / "failing/few_bn_b8_seed0/log.txt").read_text()
    assert "1 done" in output and "4 failed" in output
    assert "the same command trains the failed cells again and keeps the others" in output


def test_an_interrupted_grid_goes_on(folder, command, environment):
    args = ["--config", "slow.py", "--norms", "GN,LN", "--batch-sizes", "16,8", "--jobs", 1, "--epochs", 2]
    line = list(map(str, command("slow", *args)))
    process = subprocess.Popen(
        line, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    printed = ""
    while " done: " not in printed:
        printed += (told := process.stdout.readline())
        assert told, printed
    # The next cell has trained an epoch, and would not end by itself.
    (going,) = wait_for(lambda: list((folder / "slow").glob("*/slow.pid")))
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=120)
    assert process.returncode == 130, printed + rest
    assert "1 done, 3 missing" in rest
    assert "the same command goes on with what is missing" in rest
    with pytest.raises(ProcessLookupError):
        os.kill(int(going.read_text()), 0)
    found = rows(folder / "slow")
    assert sorted(row["status"] for row in found.values()) == ["done", "missing", "missing", "missing"]
    (first,) = re.findall(r"^\[1/4\] (\S+) done", printed, re.MULTILINE)
    before = (folder / "slow" / first / "run.json").stat().st_mtime_ns

    fast = environment | {"STUDY_TEST_FAST": "1"}
    done = subprocess.run(line, cwd=folder, env=fast, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {row["status"] for row in rows(folder / "slow").values()} == {"done"}
    assert (folder / "slow" / first / "run.json").stat().st_mtime_ns == before
    # The interrupted training was gone on with.
    log = (going.parent / "log.txt").read_text()
    assert log.count(STARTS) == 2
    assert "resumed epoch: 1" in log.rpartition(STARTS)[2]
    # As tools/train.py does.
    assert all(name in log for name in ("ResumableEpochLoop", "RandomStatesHook", "FiniteLossHook"))


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.1)
    return found


def test_torchrun_trains_cells_in_two_processes(folder, study):
    args = ["--norms", "BN*,SyncBN", "--batch-sizes", "4", "--launcher", "pytorch", "--gpus", 2]
    # Of another training on several machines.
    status, output = study("torchrun", *args, NNODES="2", NODE_RANK="1")
    assert status == 0, output
    out = folder / "torchrun"
    found = rows(out)
    row = found["BN*", 4]
    assert (row["status"], row["processes"], row["total_batch"], row["iterations"]) == ("done", "2", "8", "4")
    assert '"world_size": 2' in (out / "few_bn-frozen_b4_seed0/run.json").read_text()
    assert found["SyncBN", 4]["reason"] == "torch has no SyncBN for the CPU: it needs GPUs"
    assert [found[norm, 4]["config"] for norm in ("BN*", "SyncBN")] == ["configs/few_bn-frozen_b4_seed0.py", ""]
    # The frozen norms are those of the BN cell.
    trained, frozen = (
        torch.load(out / f"few_{norm}_b4_seed0/epoch_1.pth", weights_only=True)["state_dict"]
        for norm in ("bn", "bn-frozen")
    )
    names = {key.rpartition(".")[0] for key in trained if key.endswith(".running_mean")}
    held = [key for key in frozen if key.rpartition(".")[0] in names]
    assert len(held) >= 4 * len(names) > 0
    assert all(torch.equal(frozen[key], trained[key]) for key in held)


@pytest.fixture(scope="module")
def jobs(folder, study):
    """A dry run for Slurm: the study's folder and what it printed; srun and sbatch are stand-ins."""
    bin_ = folder / "bin"
    bin_.mkdir()
    (bin_ / "srun").write_text(f"#!{sys.executable}\n" + (Path(__file__).parent / "srun.py").read_text())
    sbatch = '#!/usr/bin/env bash\nprintf "%q " "$@" >> submitted.txt\necho >> submitted.txt\necho $RANDOM$RANDOM\n'
    (bin_ / "sbatch").write_text(sbatch)
    for path in bin_.iterdir():
        path.chmod(0o755)
    args = ["--norms", "GN,BN,BN*,SyncBN", "--batch-sizes", "8", "--launcher", "slurm", "--gpus", 2, "--dry-run"]
    status, output = study(SLURM, *args, "--partition", "gpu", SRUN_ARGS="--time=1:00:00", GPUS_PER_NODE="4")
    assert status == 0, output
    return folder / SLURM, output


def test_a_dry_run_for_slurm_writes_a_job_for_each_cell(jobs, environment):
    out, output = jobs
    assert {path.parent.name for path in out.glob("*/job.sh")} == {
        f"few_{norm}_b8_seed0" for norm in ("gn-8g", "bn", "bn-frozen", "syncbn")
    }
    assert not list(out.glob("*/run.json"))
    assert not (out / "study.csv").exists()
    assert f"4 jobs: {out / 'submit.sh'} submits them" in output
    assert re.search(r"few_syncbn_b8_seed0 +\S+ +2 +32 +scratch +to train", output)
    job = (out / "few_gn-8g_b8_seed0/job.sh").read_text()
    for line in ("--partition=gpu", "--time=1:00:00", "--ntasks=2", "--ntasks-per-node=2", "--gres=gpu:2"):
        assert f"#SBATCH {line}\n" in job
    scripts = [*out.glob("*/job.sh"), out / "submit.sh"]
    subprocess.run(["bash", "-n", *scripts], check=True)
    checked = subprocess.run(["shellcheck", *scripts], env=environment, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


def test_submitting_has_bn_frozen_wait_for_its_bn(jobs, environment):
    out, _ = jobs
    done = subprocess.run([out / "submit.sh"], cwd=out, env=environment, capture_output=True, text=True, check=True)
    numbers = {name: number for number, name in map(str.split, done.stdout.splitlines())}
    submitted = [shlex.split(line) for line in (out / "submitted.txt").read_text().splitlines()]
    after = {Path(line[-1]).parent.name: line[-4] for line in submitted}
    for *_, name, log, job in submitted:
        cell = Path(job).parent
        assert re.fullmatch(rf"--job-name={out.name}/{cell.name}/[0-9a-f]{{8}}", name)
        assert log == f"--output={cell}/log.txt".replace("%", "%%")
    assert after.keys() == numbers.keys() == {path.parent.name for path in out.glob("*/job.sh")}
    frozen, model = "few_bn-frozen_b8_seed0", "few_bn_b8_seed0"
    assert list(after).index(model) < list(after).index(frozen)
    assert after.pop(frozen) == f"--dependency=singleton,afterok:{numbers[model]}"
    assert set(after.values()) == {"--dependency=singleton"}


def test_what_a_job_has_trained_is_gathered(jobs, study, environment):
    out, _ = jobs
    job = out / "few_gn-8g_b8_seed0/job.sh"
    # The interpreter is that of study.py.
    shell = environment | {"PATH": f"{out.parent / 'bin'}:/usr/bin:/bin"}
    done = subprocess.run(["bash", job], cwd=out, env=shell, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    # Where srun ends with an error, and Slurm writes what is printed.
    failing = out / "bin"
    failing.mkdir()
    (failing / "srun").write_text("#!/bin/sh\necho ValueError: no such thing\nexit 3\n")
    (failing / "srun").chmod(0o755)
    model = out / "few_bn_b8_seed0"
    with (model / "log.txt").open("w") as log:
        ended = subprocess.run(["bash", model / "job.sh"], env=shell | {"PATH": f"{failing}:/usr/bin:/bin"}, stdout=log)
    assert ended.returncode == 3
    args = ["--norms", "GN,BN*,SyncBN", "--batch-sizes", "8", "--launcher", "slurm", "--gpus", 2]
    status, output = study(SLURM, *args)
    assert status == 1, output
    found = {norm: (row["status"], row["reason"]) for (norm, _), row in rows(out).items()}
    assert found == {
        "GN": ("done", ""),
        "BN": ("failed", "ValueError: no such thing"),
        "BN*": ("failed", "its BN model, few_bn_b8_seed0, has failed"),
        "SyncBN": ("missing", "not finished"),
    }
    assert f"bash '{out}/submit.sh' trains what is missing or has failed" in output
    submit = (out / "submit.sh").read_text()
    assert job.parent.name not in submit
    assert model.name in submit


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--norms", "BN,XN"], "unknown norm 'XN'; known are BN, BN*, SyncBN, GN, LN, IN"),
        (["--batch-sizes", "8,x"], "comma-separated integers, got '8,x'"),
        (["--groups", "3"], "--groups: 3 does not divide the 16 channels"),
        (["--jobs", "0"], "--jobs and --gpus must be at least 1, got 0 and 1"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_bad_input_is_told_in_a_line(call_tool, folder, command, args, told):
    line = list(map(str, command("wrong", *args)))
    status, output = call_tool(folder, "study.py", *line[2:])
    assert status in (1, 2)
    assert told in output
    assert "Traceback" not in output
    assert not list((folder / "wrong").glob("*/run.json"))
