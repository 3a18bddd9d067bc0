"""How many images per second a core feeds: mmdet's COCO train pipeline on JPEG files of COCO's size.

    python benchmarks/scale_loader.py --out benchmarks/results/scale_loader.json

The files are scikit-learn's two photographs, cropped, scaled to 640 x 480 and saved at the quality that comes closest
to 163 kB, the mean of train2017 (18 GB, 118,287 files). An image has COCO's 7.3 objects, polygons. The pipeline is
that of mmdet's coco_instance.py: decode, annotations with masks, resize to 1333 x 800, flip, pack. It runs in a
dataloader with one worker, a batch of 2 and OpenCV's threads off, as mmdet's default_runtime.py has them. Counted are
CPU seconds of the worker and of the training process, which a loaded machine hardly changes; medians of --repeats runs.
Masks as polygons cost the loader less, but mmdet then draws each positive RoI's target in the training process, on the
CPU: "mask_targets" is what that costs for 128 RoIs an image. Bitmaps are cut on the GPU.
"""

import argparse
import bisect
import io
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import synthetic_coco
import torch
from PIL import Image

import mmgn
from mmgn.compat import environment

JPEG_BYTES = 163_000
BATCH = 2
#: Positive RoIs of an image, at most: a quarter of mmdet's 512.
ROIS = 128


def write_images(folder: Path, number: int) -> float:
    """Write ``number`` JPEG files and return their mean size in bytes."""
    from sklearn.datasets import load_sample_images

    photos = [Image.fromarray(photo) for photo in load_sample_images().images]
    rng = np.random.default_rng(0)
    folder.mkdir()
    total = 0
    for i in range(number):
        photo = photos[i % 2]
        # 4:3, from three quarters of the photograph's height on.
        height = int(rng.integers(photo.height * 3 // 4, photo.height))
        width = height * 4 // 3
        left, top = rng.integers(photo.width - width + 1), rng.integers(photo.height - height + 1)
        crop = photo.resize((synthetic_coco.WIDTH, synthetic_coco.HEIGHT), box=(left, top, left + width, top + height))
        data = _jpeg(crop)
        (folder / f"{i:012}.jpg").write_bytes(data)
        total += len(data)
    return total / number


def _jpeg(image: Image.Image) -> bytes:
    def encoded(quality: int) -> bytes:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return buffer.getvalue()

    qualities = range(60, 101)
    # Size grows with quality.
    place = bisect.bisect_left(qualities, JPEG_BYTES, key=lambda quality: len(encoded(quality)))
    nearest = [encoded(quality) for quality in qualities[max(place - 1, 0) : place + 1]]
    return min(nearest, key=lambda data: abs(len(data) - JPEG_BYTES))


def build(folder: Path, bitmaps: bool) -> Any:
    """Build the data set of mmdet's coco_instance.py over ``folder``, masks as bitmaps (its default) or polygons."""
    from mmdet.registry import DATASETS
    from mmengine.config import Config

    cfg = Config.fromfile(_coco_instance()).train_dataloader.dataset
    cfg.update(data_root=str(folder), ann_file="coco.json", data_prefix=dict(img="images"), _scope_="mmdet")
    cfg.pipeline[1].poly2mask = bitmaps
    return DATASETS.build(cfg)


def _coco_instance() -> Path:
    from mmgn.engine.config import package_configs

    configs = package_configs("mmdet")
    assert configs is not None
    return configs / "_base_/datasets/coco_instance.py"


def loader_seconds(dataset: Any) -> dict[str, float]:
    """Return CPU seconds per image, of the worker and of the process that trains, over one epoch."""
    from mmengine.dataset import pseudo_collate, worker_init_fn

    loader = torch.utils.data.DataLoader(
        dataset, BATCH, num_workers=1, collate_fn=pseudo_collate, drop_last=True,
        worker_init_fn=lambda i: worker_init_fn(i, num_workers=1, rank=0, seed=0),
    )  # fmt: skip
    ours, theirs = time.process_time(), _children()
    images = sum(len(batch["inputs"]) for batch in loader)
    ours = time.process_time() - ours
    # Only a child that has ended counts, so the loader must be gone.
    del loader
    return {"worker": (_children() - theirs) / images, "training_process": ours / images}


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def step_seconds(dataset: Any, number: int) -> dict[str, float]:
    """Return CPU seconds per image of each of the pipeline's steps, in this process."""
    steps: list[Callable[[Any], Any]] = dataset.pipeline.transforms
    seconds = dict.fromkeys(["read_item", *(type(step).__name__ for step in steps)], 0.0)
    for i in range(number):
        start = time.process_time()
        data = dataset.get_data_info(i)
        seconds["read_item"] += time.process_time() - start
        for step in steps:
            start = time.process_time()
            data = step(data)
            seconds[type(step).__name__] += time.process_time() - start
    return {name: total / number for name, total in seconds.items()}


def target_seconds(dataset: Any, number: int) -> dict[str, float]:
    """Return CPU seconds per image of cutting the mask targets of ``ROIS`` RoIs near the objects, as mmdet does."""
    rng = np.random.default_rng(0)
    total = 0.0
    for i in range(number):
        truth = dataset[i]["data_samples"].gt_instances
        of = rng.integers(len(truth), size=ROIS)
        boxes = truth.bboxes.tensor.numpy()[of] + rng.normal(0, 4, (ROIS, 4)).astype(np.float32)
        boxes = boxes.clip(0, [truth.masks.width, truth.masks.height] * 2).astype(np.float32)
        start = time.process_time()
        truth.masks.crop_and_resize(boxes, (28, 28), of, device="cpu")
        total += time.process_time() - start
    return {"mask_targets": total / number}


def _medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {f"{key}_ms": round(1e3 * statistics.median(run[key] for run in runs), 2) for key in runs[0]}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200, help="JPEG files, an epoch of the loader [200]")
    parser.add_argument("--repeats", type=int, default=5, help="epochs, whose median counts [5]")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = write_images(folder / "images", args.images)
        objects = round(args.images * synthetic_coco.COCO_OBJECTS / synthetic_coco.COCO_IMAGES)
        synthetic_coco.write(folder / "coco.json", args.images, objects, polygons=True)
        for masks in ("bitmaps", "polygons"):
            dataset = build(folder, masks == "bitmaps")
            loads = _medians([loader_seconds(dataset) for _ in range(args.repeats)])
            steps = _medians([step_seconds(dataset, len(dataset)) for _ in range(args.repeats)])
            per_core = round(1e3 / loads["worker_ms"], 1)
            rows.append({"masks": masks, **loads, "images_per_second_per_core": per_core, "steps": steps})
            if masks == "polygons":
                rows[-1] |= _medians([target_seconds(dataset, args.images // 4) for _ in range(args.repeats)])
            print(rows[-1], flush=True)
    report = {
        "what": "CPU milliseconds per image of mmdet's COCO train pipeline, measured",
        "cpu": environment.collect()["system"]["cpu"],
        "opencv": cv2.__version__,
        "torch": torch.__version__,
        "mmgn": mmgn.__version__,
        "images": args.images,
        "repeats": args.repeats,
        "jpeg_bytes": round(size),
        "rows": rows,
    }
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
