"""What annotation files of COCO's size and ten times it cost: time and memory to load, per rank and per worker.

    python benchmarks/scale_annotations.py --out benchmarks/results/scale_annotations.json

mmdet's CocoDataset beside SharedCocoDataset, its first start (parse and write the cache) and every later one, each in
a process of its own. Memory is what Linux says in /proc/PID/smaps_rollup: USS is what a process has alone, PSS counts
a page that k processes share as 1/k. Two workers are forked from the rank as a dataloader's are; each reads 20,000
items in random order, then both are measured. The peak is the resident set's. Files are made in --scratch and removed.
"""

import argparse
import gc
import itertools
import json
import multiprocessing
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import process_memory
import synthetic_coco

import mmgn
from mmgn.compat import environment

#: Name: times COCO, with polygons or boxes alone.
FILES = {"coco": (1, True), "coco_boxes": (1, False), "coco_boxes_x5": (5, False), "coco_boxes_x10": (10, False)}
DATASETS = ("CocoDataset", "SharedCocoDataset, first start", "SharedCocoDataset, later start")
_READS = 20_000


def memory(pid: int | str = "self") -> dict[str, float]:
    """Return the USS and PSS of a process in MiB."""
    kib = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        key, value, *_ = line.split()
        kib[key.rstrip(":")] = int(value)
    return {"uss": (kib["Private_Clean"] + kib["Private_Dirty"]) / 1024, "pss": kib["Pss"] / 1024}


def load(kind: str, file: Path, cache: Path) -> dict[str, float]:
    """Load the file as a rank does, fork a worker that reads it, and return seconds and MiB."""
    from mmdet.registry import DATASETS

    shared = dict(cache_dir=str(cache)) if kind.startswith("Shared") else {}
    cfg = dict(type=kind.split(",")[0], ann_file=str(file), data_prefix=dict(img=""), _scope_="mmdet", **shared)
    cfg["filter_cfg"] = dict(filter_empty_gt=True, min_size=32)
    # Imports what the first build would.
    DATASETS.get("mmdet.SharedCocoDataset")
    gc.collect()
    before = memory()
    process_memory.restart_peak()
    resident = process_memory.resident_mib("VmRSS")
    wall, cpu = time.perf_counter(), time.process_time()
    dataset = DATASETS.build(cfg)
    result = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    result["rank_uss_mib"] = memory()["uss"] - before["uss"]
    result["peak_mib"] = process_memory.resident_mib("VmHWM") - resident
    result["items_mib"] = dataset.data_bytes.nbytes / 2**20
    return result | workers(dataset)


def workers(dataset: Any) -> dict[str, float]:
    """Fork two workers that read from the data set, and return the mean of what they have and take."""
    fork = multiprocessing.get_context("fork")
    both_have_read = fork.Barrier(2)
    pipes = [fork.Pipe() for _ in range(2)]
    processes = [fork.Process(target=_read, args=(dataset, i, both_have_read, pipes[i][1])) for i in range(2)]
    for process in processes:
        process.start()
    results = [ours.recv() for ours, _ in pipes]
    for process in processes:
        process.join()
    return {key: statistics.mean(result[key] for result in results) for key in results[0]}


def _read(dataset: Any, seed: int, both_have_read: Any, connection: Connection) -> None:
    draw = random.Random(seed)
    start = time.process_time()
    for _ in range(_READS):
        dataset.get_data_info(draw.randrange(len(dataset)))
    item = (time.process_time() - start) / _READS
    both_have_read.wait()
    now = memory()
    both_have_read.wait()
    connection.send({"worker_uss_mib": now["uss"], "worker_pss_mib": now["pss"], "item_us": item * 1e6})


def measure(kind: str, file: Path, cache: Path, repeats: int) -> dict[str, Any]:
    """Return the medians over ``repeats`` processes."""
    runs = []
    for _ in range(repeats):
        if kind.endswith("first start"):
            shutil.rmtree(cache, ignore_errors=True)
        command = [sys.executable, __file__, "--load", kind, str(file), str(cache)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        runs.append(json.loads(output.splitlines()[-1]))
    return {key: round(statistics.median(run[key] for run in runs), 2) for key in runs[0]}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", nargs="+", default=list(FILES), choices=FILES, help="which files [all]")
    parser.add_argument("--datasets", nargs="+", default=DATASETS, choices=DATASETS, help="which data sets [all]")
    parser.add_argument("--repeats", type=int, default=3, help="processes per figure; ten times COCO has one [3]")
    parser.add_argument("--scratch", type=Path, help="where the files are made [a temporary folder]")
    parser.add_argument("--out", type=Path, help="JSON file to write; rows that are not measured are kept")
    parser.add_argument("--load", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.load:
        kind, file, cache = args.load
        print(json.dumps(load(kind, Path(file), Path(cache))))
        return
    rows = {}
    if args.out and args.out.exists():
        rows = {(row["file"], row["dataset"]): row for row in json.loads(args.out.read_text())["rows"]}
    with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
        for name in args.files:
            times, polygons = FILES[name]
            file, cache = Path(folder, f"{name}.json"), Path(folder, "cache")
            images, objects = times * synthetic_coco.COCO_IMAGES, times * synthetic_coco.COCO_OBJECTS
            synthetic_coco.write(file, images, objects, polygons=polygons)
            repeats = args.repeats if times == 1 else 1
            what = {"file": name, "images": images, "objects": objects, "polygons": polygons, "runs": repeats}
            what["file_mib"] = round(file.stat().st_size / 2**20, 1)
            for kind in args.datasets:
                rows[name, kind] = what | {"dataset": kind} | measure(kind, file, cache, repeats)
                print(rows[name, kind], flush=True)
                if args.out:
                    write(args.out, [rows[key] for key in itertools.product(FILES, DATASETS) if key in rows])
            file.unlink()


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the report."""
    report = {
        "what": "loading annotation files: seconds, CPU seconds, MiB beyond the imports (worker: its whole), measured",
        "cpu": environment.collect()["system"]["cpu"],
        "mmgn": mmgn.__version__,
        "rows": rows,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
