"""Predictor: mmdet's DetInferencer with the checkpoint checked; its predictions as pictures and COCO results."""

import glob
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
from mmdet.apis import DetInferencer
from mmdet.structures import DetDataSample
from mmdet.structures.mask import encode_mask_results
from mmengine.config import Config
from rich.progress import track
from torch import nn

from mmgn.datasets.check.images import ImageError, read_size
from mmgn.engine import data
from mmgn.engine.files import write_whole
from mmgn.engine.hooks.checkpoint_match import check_match
from mmgn.evaluation.dumps import coco_results


class Predictor(DetInferencer):
    """mmdet's DetInferencer of a config and a checkpoint.

    The checkpoint must hold all of the model's parameters. Where it does not name its classes, they are those of the
    config's test data; mmdet takes COCO's.

    Args:
        cfg: with ``test_dataloader``; left as it is.
        checkpoint: its path.
        device: None for a GPU where there is one.
        allow_missing: as :func:`mmgn.engine.hooks.checkpoint_match.check_match` takes it.

    Raises:
        CheckpointError: it cannot be read, or is of another model.
        ValueError: the config has no test data.
    """

    def __init__(self, cfg: Config, checkpoint: str, *, device: str | None = None, allow_missing: bool = False) -> None:
        if not cfg.get("test_dataloader"):
            raise ValueError(f"config {cfg.filename} has no test_dataloader, whose pipeline prepares images")
        self._source = checkpoint, allow_missing
        super().__init__(cfg, checkpoint, device=device, scope=cfg.get("default_scope", "mmdet"), show_progress=False)

    def _load_weights_to_model(self, model: nn.Module, checkpoint: dict[str, Any] | None, cfg: Config) -> None:
        assert checkpoint is not None
        name, allow_missing = self._source
        check_match(model, checkpoint, name, allow_missing=allow_missing)
        meta = checkpoint.setdefault("meta", {})
        datasets = [dataset for _, dataset in data.datasets(cfg, "test")]
        if not {"dataset_meta", "CLASSES"}.intersection(meta) and datasets:
            classes = data.find_classes(datasets[0], cfg)
            if classes is not None:
                meta["dataset_meta"] = {"classes": classes}
        super()._load_weights_to_model(model, checkpoint, cfg)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names by label."""
        return tuple(self.model.dataset_meta["classes"])

    def predict(self, paths: Sequence[Path]) -> list[DetDataSample]:
        """Return the predictions for images that can be read, all in one batch."""
        if not paths:
            return []
        names = [str(path) for path in paths]
        found: list[DetDataSample] = self(names, batch_size=len(names), return_datasamples=True)["predictions"]
        return found

    def paint(self, image: np.ndarray, sample: DetDataSample, path: Path, score_thr: float) -> None:
        """Write the image, (H, W, 3) RGB, with its predictions from a score on."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.visualizer.add_datasample(
            path.name, image, sample, draw_gt=False, pred_score_thr=score_thr, out_file=str(path)
        )


def find_images(inputs: Sequence[str]) -> list[Path]:
    """Return the images that files, folders (with what is below them) and patterns such as ``a/*.jpg`` stand for.

    Raises:
        FileNotFoundError: one of them stands for none.
    """
    found: dict[Path, None] = {}
    for each in inputs:
        paths = [Path(each)] if os.path.exists(each) else sorted(map(Path, glob.glob(each, recursive=True)))
        images = [image for path in paths for image in (_below(path) if path.is_dir() else [path])]
        if not images:
            raise FileNotFoundError(f"no image {each!r}: neither a file, a folder with images nor a pattern of such")
        found.update(dict.fromkeys(images))
    return list(found)


def _below(folder: Path) -> Iterator[Path]:
    yield from sorted(path for path in folder.rglob("*") if path.suffix.lower() in data.IMAGE_SUFFIXES)


def read_image(path: Path) -> np.ndarray:
    """Return an image, (H, W, 3) RGB.

    Raises:
        ImageError: it is cut off, no regular file, of more pixels than Pillow thinks safe, or of a format that Pillow
            or OpenCV cannot open.
    """
    # Of an image that ends early OpenCV invents the rest, and a few bytes may say that they are gigabytes.
    read_size(path)
    try:
        image = mmcv.imfrombytes(path.read_bytes(), channel_order="rgb")
    # OpenCV raises on some, and returns None for others.
    except Exception:
        image = None
    if image is None:
        raise ImageError("unreadable_image", "OpenCV cannot open it")
    return image


def write_predictions(
    predictor: Predictor,
    paths: Sequence[Path],
    out: Path,
    *,
    batch_size: int = 1,
    score_thr: float = 0.3,
    truth: Mapping[str, Any] | None = None,
) -> dict[Path, str]:
    """Predict and write pictures/, predictions.json and images.json.

    Args:
        predictor: the model.
        paths: the images. Pictures lie below ``out`` as these lie below the folder that all have in common.
        out: the folder.
        batch_size: images at a time.
        score_thr: lowest score in the pictures; predictions.json has all.
        truth: COCO annotations whose ids of images and categories are taken, by file name and by class name.

    Returns:
        The images that cannot be read, each with why.

    Raises:
        ValueError: ``truth`` lacks an image or a class.
    """
    categories = _categories(predictor.classes, truth)
    entries = _image_entries(paths, truth)
    cat_ids = [category["id"] for category in categories]
    # Without "..", by which a picture would lie outside ``out``.
    places = {path: Path(os.path.abspath(path)) for path in paths}
    root = Path(os.path.commonpath([place.parent for place in places.values()]))
    results, images = [], []
    unreadable: dict[Path, str] = {}
    for start in track(range(0, len(paths), batch_size), "Predicting", disable=not sys.stdout.isatty()):
        readable = []
        for path in paths[start : start + batch_size]:
            try:
                readable.append((path, read_image(path)))
            except ImageError as error:
                unreadable[path] = str(error)
        for (path, image), sample in zip(readable, predictor.predict([path for path, _ in readable]), strict=True):
            height, width = image.shape[:2]
            images.append(entries[path] | {"width": width, "height": height})
            results += coco_entries(sample, images[-1], cat_ids)
            predictor.paint(image, sample, out / "pictures" / places[path].relative_to(root), score_thr)
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / "images.json", json.dumps({"images": images, "categories": categories}, indent=1).encode())
    write_whole(out / "predictions.json", json.dumps(results).encode())
    return unreadable


def _categories(classes: Sequence[str], truth: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return the categories by label: mmdet numbers labels in the order of the annotation file."""
    if truth is None:
        return [{"id": label + 1, "name": name} for label, name in enumerate(classes)]
    known = [{"id": entry["id"], "name": entry["name"]} for entry in truth["categories"] if entry["name"] in classes]
    missing = sorted({*classes} - {entry["name"] for entry in known})
    if missing:
        raise ValueError(
            f"{len(missing)} of the model's {len(classes)} classes are no categories of the annotations: "
            f"{', '.join(missing[:5])}"
        )
    return known


def _image_entries(paths: Sequence[Path], truth: Mapping[str, Any] | None) -> dict[Path, dict[str, Any]]:
    if truth is None:
        return {path: {"id": number, "file_name": str(path)} for number, path in enumerate(paths, 1)}
    known = {entry["file_name"]: entry["id"] for entry in truth["images"]}
    entries = {}
    for path in paths:
        # file_name may have folders before it.
        names = ["/".join(path.absolute().parts[start:]) for start in range(1, len(path.absolute().parts))]
        name = next((name for name in names if name in known), None)
        if name is None:
            raise ValueError(f"image {path} is not among the {len(known)} of the annotations")
        entries[path] = {"id": known[name], "file_name": name}
    return entries


def coco_entries(sample: DetDataSample, image: Mapping[str, Any], cat_ids: Sequence[Any]) -> list[dict[str, Any]]:
    """Return an image's predictions as COCO results, each with its box and, where predicted, its mask.

    Args:
        sample: the prediction.
        image: its COCO entry.
        cat_ids: by label.

    Raises:
        ValueError: the image's size is not the entry's.
    """
    instances = {key: value.cpu() for key, value in sample.pred_instances.items()}
    if "masks" in instances:
        instances["masks"] = encode_mask_results(instances["masks"].numpy())
    dump = [{"img_id": image["id"], "pred_instances": instances}]
    results = coco_results(dump, {"images": [image]}, cat_ids)
    return results.get("segm", results["bbox"])
