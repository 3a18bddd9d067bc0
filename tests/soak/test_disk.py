"""A disk that is full at a training's writes, and checkpoints of which a bit is flipped; needs to mount a tmpfs."""

import collections
import os
import random
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
# Between one write's size and the next one's: config, log, events; checkpoints.
SIZES = ["24k", "96k", "2m", "26m", "53m", "100m"]


class Disk:
    """A tmpfs in a mount namespace of its own, in which commands run."""

    def __init__(self, place, *options):
        place.mkdir(exist_ok=True)
        self.place = place
        user = [] if os.getuid() == 0 else ["--user", "--map-root-user"]
        mount = 'mount -t tmpfs -o "$1" none "$0" && echo mounted && exec cat'
        command = ["unshare", *user, "--mount", "sh", "-c", mount, place, ",".join(options)]
        self._holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._holder.stdout.readline() == "mounted\n", "no tmpfs can be mounted here"
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


def train(disk, *flags):
    return disk.tool("train.py", CONFIG, "--work-dir", disk.place, *FLAGS, *flags, "--cfg-options", *QUICK, *HERE)


def weights(folder):
    return torch.load(folder / "epoch_2.pth", weights_only=True)["state_dict"]


def the_paragraph(code, said, tool="train.py"):
    """Check that an error is told in one line, and return it."""
    lines = [line for line in said.splitlines() if line.startswith(f"{tool}: ")]
    assert code == 1 and len(lines) == 1 and "Traceback" not in said and "Logging error" not in said, said[-3000:]
    return lines[0]


def kind(place, text):
    name = text.partition(f"{place}/")[2].split()[0]
    name = "checkpoint" if name.startswith("epoch") else "best checkpoint" if name.startswith("best") else name
    return Path(name).name.partition(".tfevents")[0].removeprefix("events.out") or name


@pytest.fixture
def data(tmp_path):
    make_digits(tmp_path / "data/digits", num_train=8, num_val=4)
    return tmp_path


def test_a_full_disk_is_told_at_each_write_and_training_goes_on_with_room(data, figures):
    with Disk(data / "work", "size=400m") as disk:
        code, said = train(disk)
        assert code == 0, said
        uninterrupted = weights(disk.files)
    found = collections.defaultdict(list)
    for size in SIZES:
        with Disk(data / "work", f"size={size}") as disk:
            code, said = train(disk)
            if code == 0:
                found["nothing: all has room"].append((size, "yes"))
                continue
            text = the_paragraph(code, said)
            assert "No space left on device" in text and "are free there" in text, text
            left = [path.name for path in disk.files.glob("*.pth") if checkpoint.damage(path) is not None]
            assert not left, (size, left)
            assert ("goes on from" in text) == (disk.files / "last_checkpoint").is_file() or "stopped" not in text, text
            disk.remount("size=400m")
            code, said = train(disk, "--resume")
            assert code == 0, said[-3000:]
            went_on = weights(disk.files)
            same = all(torch.equal(went_on[key], value) for key, value in uninterrupted.items())
            assert same, size
            found[kind(disk.place, text)].append((size, "yes"))
    rows = [
        {
            "the write that fails": what,
            "sizes of the disk": ", ".join(size for size, _ in cases),
            "exit status": 0 if what.startswith("nothing") else 1,
            "lines of error": 0 if what.startswith("nothing") else 1,
            "weights after --resume with room": "" if what.startswith("nothing") else "equal bit for bit",
        }
        for what, cases in found.items()
    ]
    figures("disk_full", "A training on tmpfs of each size: which write failed, and what became of it", rows)


@pytest.mark.parametrize("options", ["size=400m,nr_inodes=4", "size=400m,nr_inodes=12"])
def test_no_inode_is_told_as_such(data, options):
    with Disk(data / "work", options) as disk:
        assert "and no inode for one more file" in the_paragraph(*train(disk))


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
