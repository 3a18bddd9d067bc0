"""Runs a Python tool and fills the disk as it begins a chosen write: fill_disk.py DISK KIND NUMBER RECORD TOOL ARGS...

RECORD becomes the JSON of how often files of each kind, names without their numbers, were opened for writing below
DISK. With KIND "-" that is all. Where a file of KIND is opened for the NUMBER-th time, and whenever it is again, all
room that is left goes to a file of its own first, so the write fails as any does on a full disk.

Files that stay open are written at no opening. With KIND "log" it is as a picture is read for the NUMBER-th time,
and the log's last page is full then; with "events" as TensorBoard gets its NUMBER-th scalar, and with "last events" as
it closes, each with a text that does not fit on what is left of a page. With "read-only" ext4 becomes that.
"""

import atexit
import collections
import json
import logging
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

ROOM = ".room"


def kind_of(path):
    """Return a file's name below the disk without what differs between runs; None for a file elsewhere."""
    name = os.path.relpath(os.path.abspath(path), disk)
    if name.startswith("..") or name == ROOM:
        return None
    # Of a file that is then renamed, that of the file.
    name = re.sub(r"(^|/)\.([^/]+)\.\d+\.part$", r"\1\2", name)
    return re.sub(r"\d+", "*", re.sub(r"(tfevents|rank\d+).*?(\.json.*)?$", r"\1\2", name))


def fill():
    """Take all room, to the last byte."""
    number = os.open(f"{disk}/{ROOM}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        for size in (2**20, 2**12, 1):
            try:
                while True:
                    os.write(number, bytes(size))
            except OSError:
                continue
    finally:
        os.close(number)


def end_page():
    """Fill the last page of the log, which has its room already."""
    from mmengine.logging import MMLogger

    for handler in MMLogger.get_current_instance().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.stream.write("." * (-os.path.getsize(handler.baseFilename) % os.sysconf("SC_PAGE_SIZE")))
            handler.flush()


def fill_log():
    """Take all room, and the log's."""
    end_page()
    fill()


def forbid():
    """Have ext4 find an error, and take no writes from then on."""
    device = subprocess.run(["findmnt", "-no", "SOURCE", disk], capture_output=True, text=True, check=True).stdout
    Path(f"/sys/fs/ext4/{Path(device.strip()).name}/trigger_fs_error").write_text("1")


AT_PICTURE = {"log": fill_log, "read-only": forbid}


def watch(event, args):
    """Count what is opened, and fill the disk where it is time."""
    if event != "open" or isinstance(args[0], int):
        return
    # TensorBoard's are bytes.
    path = os.fsdecode(args[0])
    if not args[2] & (os.O_WRONLY | os.O_RDWR):
        if path.endswith((".jpg", ".png")):
            pictures.append(path)
            if len(pictures) == number:
                AT_PICTURE.get(chosen, int)()
        return
    kind = kind_of(path)
    if kind is None:
        return
    opened[kind] += 1
    if kind == chosen and opened[kind] >= number:
        if args[2] & os.O_TRUNC and os.path.exists(path):
            # As the opening will; its room is not to be left.
            os.truncate(path, 0)
        fill()


def full_at_events():
    """Have TensorBoard find no room: its thread, for what its buffer does not hold, or the last flush."""
    from torch.utils.tensorboard import SummaryWriter

    name, size = ("add_scalar", 20000) if chosen == "events" else ("close", 5000)
    do, calls = getattr(SummaryWriter, name), []

    def on_full_disk(writer, *args, **kwargs):
        calls.append(name)
        if len(calls) == number:
            fill()
            writer.add_text("text", "." * size)
        do(writer, *args, **kwargs)

    setattr(SummaryWriter, name, on_full_disk)


disk, chosen, number, record = os.path.abspath(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
opened, pictures = collections.Counter(), []
sys.argv = sys.argv[5:]
sys.path.insert(0, os.path.dirname(os.path.abspath(sys.argv[0])))
sys.addaudithook(watch)
atexit.register(lambda: record.write_text(json.dumps(opened)))
if chosen.endswith("events"):
    full_at_events()
runpy.run_path(sys.argv[0], run_name="__main__")
