"""A disk that is full at a training's writes, and checkpoints of which a bit is flipped; needs to mount a tmpfs."""

import collections
import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mmdet")
import torch

from mmgn.compat import checkpoint
from mmgn.datasets.digits import make_digits

pytestmark = [pytest.mark.soak, pytest.mark.timeout(7200)]
TOOLS = Path(__file__).parents[2] / "tools"
CONFIG = "digits/mask-rcnn_r18-mini_fpn_fusedgn-all_digits.py"
HERE = [
    *(f"{mode}_dataloader.num_workers=0" for mode in ("train", "val")),
    *(f"{mode}_dataloader.persistent_workers=False" for mode in ("train", "val")),
]
QUICK = ["param_scheduler.1.end=2", "train_cfg.max_epochs=2", "train_cfg.val_interval=1"]
FLAGS = ["--skip-preflight", "--tensorboard", "--seed", "3"]
FILLING = Path(__file__).with_name("fill_disk.py")


class Disk:
    """A tmpfs in a mount namespace of its own, in which commands run."""

    mount = 'mount -t tmpfs -o "$1" none "$0"'

    def __init__(self, place, *options):
        place.mkdir(exist_ok=True)
        self.place = place
        user = [] if os.getuid() == 0 else ["--user", "--map-root-user"]
        mount = f"{self.mount} && echo mounted && exec cat"
        command = ["unshare", *user, "--mount", "sh", "-c", mount, place, ",".join(options)]
        self._holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._holder.stdout.readline() == "mounted\n", "it cannot be mounted here"
        self._enter = ["nsenter", "--target", str(self._holder.pid), *(["--user"] if user else []), "--mount"]
        # The same files, seen from here.
        self.files = Path(f"/proc/{self._holder.pid}/root{place}")

    def run(self, *command):
        inside = ["sh", "-c", 'cd "$0" && exec "$@"', self.place.parent, *command]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run([*self._enter, *map(str, inside)], capture_output=True, text=True, env=env, timeout=400)
        return done.returncode, done.stdout + done.stderr

    def tool(self, name, *args):
        return self.run(sys.executable, TOOLS / name, *args)

    def remount(self, options):
        assert self.run("mount", "-o", f"remount,{options}", self.place)[0] == 0

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self._holder.communicate()


class Failing(Disk):
    """An ext4 of 600 MB that an error makes read-only; needs root and a loop device."""

    mount = 'truncate -s 600M "$0.image" && mkfs.ext4 -q "$0.image" && mount -o "loop,$1" "$0.image" "$0"'

    def repair(self):
        repair = 'umount "$0"; e2fsck -p "$0.image"; mount -o loop "$0.image" "$0"'
        assert self.run("sh", "-c", repair, self.place)[0] == 0


class Quota(Disk):
    """A btrfs of 600 MB with a quota; needs root, a loop device and btrfs-progs."""

    mount = (
        'truncate -s 600M "$0.image" && mkfs.btrfs -q "$0.image" >&2 && mount -o loop "$0.image" "$0" && '
        'btrfs quota enable "$0" && btrfs qgroup limit "$1" "$0"'
    )

    def limit(self, size):
        assert self.run("btrfs", "qgroup", "limit", size, self.place)[0] == 0


def train(disk, *flags):
    return disk.tool("train.py", CONFIG, "--work-dir", disk.place, *FLAGS, *flags, "--cfg-options", *QUICK, *HERE)


def weights(folder):
    return torch.load(folder / "epoch_2.pth", weights_only=True)["state_dict"]


def the_paragraph(code, said, tool="train.py"):
    """Check that an error is told in one line, and return it."""
    lines = [line for line in said.splitlines() if line.startswith(f"{tool}: ")]
    assert code == 1 and len(lines) == 1 and "Traceback" not in said and "Logging error" not in said, said[-3000:]
    return lines[0]


@pytest.fixture
def data(tmp_path):
    make_digits(tmp_path / "data/digits", num_train=8, num_val=4)
    return tmp_path


def fill_at(disk, kind, number, tool, *args):
    """Run a tool on a disk that becomes full at a write; returns its status, its output, and what was opened."""
    record = disk.place.with_name("opened.json")
    filling = (FILLING, disk.place, kind, number, record, TOOLS / tool)
    code, said = disk.run(sys.executable, *filling, *args)
    return code, said, json.loads(record.read_text())


TRAINING = [CONFIG, "--work-dir", "work", *FLAGS]
OPTIONS = ["--cfg-options", *QUICK, *HERE, "default_hooks.logger.interval=1"]

# Files that stay open, and the time at which there is a checkpoint.
STAY_OPEN = {"log": 14, "events": 60, "last events": 1}


def test_a_disk_that_is_full_at_each_write_is_told_and_training_goes_on_with_room(data, figures):
    with Disk(data / "work", "size=400m") as disk:
        code, said, opened = fill_at(disk, "-", 0, "train.py", *TRAINING, "--profile", *OPTIONS)
        assert code == 0, said
        uninterrupted = weights(disk.files)
    # What is added to stays within a page of the disk, but for the first time.
    numbers = {kind: 1 if "vis_data" in kind else count for kind, count in opened.items()}
    rows = []
    for kind, number in {**numbers, **STAY_OPEN}.items():
        left = went_on_from(data, kind, number, uninterrupted)
        rows.append(
            {
                "full as it is opened": f"`{kind}`" if kind in opened else "",
                "or written, open": "" if kind in opened else kind,
                "for the time": f"{number} of {opened[kind]}" if kind in opened else str(number),
                "exit status": 1,
                "lines of error": 1,
                "checkpoints left": left,
                "damaged": 0,
                "weights after --resume with room": "equal bit for bit",
            }
        )
    figures("disk_full", "A training whose disk is full at one write, for each kind of file that it writes", rows)


def went_on_from(data, kind, number, uninterrupted):
    """Check what a full disk does to a training, and how it goes on; returns how many checkpoints are left."""
    profile = ["--profile"] if kind.startswith("profile") else []
    with Disk(data / "work", "size=400m") as disk:
        text = the_paragraph(*fill_at(disk, kind, number, "train.py", *TRAINING, *profile, *OPTIONS)[:2])
        assert "No space left on device" in text and "work/" in text and "Free some room" in text, text
        left = list(disk.files.glob("*.pth"))
        assert not [path.name for path in left if checkpoint.damage(path) is not None], kind
        assert ("goes on from" in text) == (disk.files / "last_checkpoint").is_file() or "stopped" not in text, text
        (disk.files / ".room").unlink()
        code, said = disk.tool("train.py", *TRAINING, "--resume", *OPTIONS)
        assert code == 0, said[-3000:]
        went_on = weights(disk.files)
    assert all(torch.equal(went_on[key], value) for key, value in uninterrupted.items()), kind
    return len(left)


def test_a_full_disk_under_two_ranks_ends_both_and_is_told_once(data):
    with Disk(data / "work", "size=26m") as disk:
        launcher = ("bash", TOOLS / "dist_train.sh", CONFIG, "2")
        code, said = disk.run(*launcher, "--work-dir", disk.place, *FLAGS, "--cfg-options", *QUICK, *HERE)
        assert code == 1 and said.count("No space left on device") == 1 and "Traceback" not in said, said[-3000:]
        assert "goes on from" in said
        assert checkpoint.damage(disk.files / "epoch_1.pth") is None


@pytest.mark.parametrize("options", ["size=400m,nr_inodes=4", "size=400m,nr_inodes=12"])
def test_no_inode_is_told_as_such(data, options):
    with Disk(data / "work", options) as disk:
        assert "and no inode for one more file" in the_paragraph(*train(disk))


@pytest.mark.skipif(shutil.which("mkfs.btrfs") is None or os.getuid() != 0, reason="needs root and btrfs-progs")
@pytest.mark.parametrize(("quota", "left"), [("8M", 0), ("50M", 2)])
def test_a_quota_that_is_used_up_is_told_and_training_goes_on_with_more(data, quota, left):
    with Quota(data / "work", quota) as disk:
        text = the_paragraph(*train(disk))
        assert re.search(r"epoch_\d.pth \(.*\) cannot be written: Disk quota exceeded\. Free some room, or", text), text
        whole = [checkpoint.damage(path) is None for path in disk.files.glob("*.pth")]
        assert whole == [True] * left
        disk.limit("none")
        code, said = train(disk, "--resume")
        assert code == 0, said[-3000:]


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, for a loop device")
def test_a_disk_that_becomes_read_only_is_told_and_training_goes_on_once_it_is_repaired(data):
    with Failing(data / "work", "errors=remount-ro") as disk:
        text = the_paragraph(*fill_at(disk, "read-only", 14, "train.py", *TRAINING, *OPTIONS)[:2])
        assert re.search("Read-only file system|Input/output error", text) and "work/" in text, text
        assert "goes on from" in text and "epoch_1.pth" in text, text
        disk.repair()
        assert checkpoint.damage(disk.files / "epoch_1.pth") is None
        code, said = disk.tool("train.py", *TRAINING, "--resume", *OPTIONS)
        assert code == 0 and "epoch 1/2" not in said, said[-3000:]


def test_a_read_only_disk_is_told(data):
    with Disk(data / "work", "size=400m") as disk:
        disk.remount("ro")
        assert "Read-only file system" in the_paragraph(*train(disk))


TOOL_CALLS = {
    "test.py": [CONFIG, "epoch_2.pth", "--work-dir", "work/test"],
    "predict.py": [CONFIG, "epoch_2.pth", "data/digits/val", "--out", "work/out"],
    "eval_results.py": [
        *("kept/predictions.segm.json", "--ann-file", "data/digits/annotations/instances_val.json"),
        *("--out", "work/out.json"),
    ],
    "convert_checkpoint.py": ["epoch_2.pth", "work/out.safetensors"],
    "swap_norm.py": ["mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py", "--out", "work/out.py"],
    "report.py": ["kept", "--out", "work/report"],
    "check_dataset.py": ["data/digits/annotations/instances_val.json", "--json", "work/out.json"],
    "quickstart.py": ["--work-dir", "work/run", "--data-dir", "work/digits"],
    "study.py": ["classification", "--out", "work/study", "--quick", "--jobs", "1"],
}


# No room for the queues' locks, and for a batch.
@pytest.mark.parametrize(("size", "cause"), [("4k", "/dev/shm/sem.* cannot be written"), ("100k", "DataLoader worker")])
def test_no_room_in_dev_shm_for_what_workers_load_is_told(data, size, cause):
    options = [*QUICK, "train_dataloader.num_workers=2"]
    with Disk(Path("/dev/shm"), f"size={size}") as shm:
        where = ("--work-dir", data / "work", "--data-root", data / "data/digits")
        code, said = shm.tool("train.py", CONFIG, *where, *FLAGS, "--cfg-options", *options)
    line = the_paragraph(code, said)
    assert cause in line and "/dev/shm" in line


def test_every_tool_tells_that_the_disk_is_full(data, figures):
    with Disk(data / "kept", "size=400m") as disk:
        code, said = train(disk)
        assert code == 0, said
        disk.run("sh", "-c", f"cp {disk.place}/epoch_2.pth {data}/")
        disk.run("cp", "-r", disk.place, data / "copy")
        for source in disk.files.iterdir():
            if source.suffix in (".json", ".csv", ".py"):
                (data / "keep").mkdir(exist_ok=True)
                (data / "keep" / source.name).write_bytes(source.read_bytes())
    (data / "kept").rmdir()
    (data / "keep").rename(data / "kept")
    rows = []
    with Disk(data / "work", "size=64k") as disk:
        disk.run("sh", "-c", "cat /dev/zero > work/fill")
        for tool, args in TOOL_CALLS.items():
            text = the_paragraph(*disk.tool(tool, *args), tool)
            assert "No space left on device" in text and "work/" in text, text
            rows.append({"tool": tool, "exit status": 1, "says": text.replace(f"{data}/", "")[:160]})
    figures("disk_tools", "Each tool that writes, on a full disk", rows)


EACH_WRITE = {
    "report.py": ["work", "--out", "work/report"],
    "test.py": [CONFIG, "work/epoch_2.pth", "--work-dir", "work/test", "--out", "work/test/out.pkl"],
}


def test_a_test_and_a_report_tell_a_disk_that_is_full_at_each_write(data):
    with Disk(data / "work", "size=400m") as disk:
        assert train(disk)[0] == 0
        for tool, args in EACH_WRITE.items():
            code, said, opened = fill_at(disk, "-", 0, tool, *args)
            assert code == 0, said
            for kind in opened:
                text = the_paragraph(*fill_at(disk, kind, 1, tool, *args)[:2], tool)
                assert "No space left on device" in text and "work/" in text, (kind, text)
                (disk.files / ".room").unlink()
            assert disk.tool(tool, *args)[0] == 0


def test_no_flipped_bit_or_cut_is_taken_for_a_checkpoint(tmp_path, figures):
    from mmengine.runner import CheckpointLoader

    path, pick = tmp_path / "epoch_1.pth", random.Random(0)
    model = torch.nn.Sequential(*(torch.nn.Conv2d(16, 16, 3) for _ in range(4)))
    torch.save({"meta": {"iter": 4}, "state_dict": model.state_dict()}, path)
    whole = path.read_bytes()
    rows = []
    for what, tries in (("a flipped bit", 5000), ("cut off", 1000)):
        outcome = collections.Counter()
        for _ in range(tries):
            bit = pick.randrange(8 * len(whole))
            content = bytearray(whole)
            content[bit // 8] ^= 1 << bit % 8
            path.write_bytes(content if "bit" in what else whole[: bit // 8])
            why = checkpoint.damage(path)
            try:
                loaded = CheckpointLoader.load_checkpoint(str(path), "cpu", "silent")["state_dict"]
            except checkpoint.CheckpointError as error:
                assert why and "\n" not in str(error)
                outcome["refused"] += 1
                continue
            assert why is None
            same = all(torch.equal(loaded[key], value) for key, value in model.state_dict().items())
            outcome["loaded, as it was (between records)" if same else "loaded, other weights"] += 1
        assert not outcome["loaded, other weights"]
        rows.append({"what": what, "tries": tries, **outcome, "loaded, other weights": 0})
    figures("disk_flips", f"A checkpoint of {len(whole)} bytes, damaged at random", rows)
