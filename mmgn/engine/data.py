"""The data sets that a config names: their files, folders and classes, whether they are there, and where else."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS

from mmgn.engine.data_code import check_runs_nothing

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
SPLITS = ("train", "val", "test")


def datasets(cfg: Config, split: str) -> Iterator[tuple[str, Any]]:
    """Yield the data sets of a split, those in wrappers too, each after the setting that it stands in."""
    dataset = (cfg.get(f"{split}_dataloader") or {}).get("dataset")
    yield from _nested(dataset, f"{split}_dataloader.dataset")


def metrics(cfg: Config, split: str) -> list[tuple[str, Any]]:
    """Return the metrics of a split, each after the setting that it stands in."""
    evaluator = cfg.get(f"{split}_evaluator")
    name = f"{split}_evaluator"
    if isinstance(evaluator, (list, tuple)):
        return [(f"{name}.{i}", metric) for i, metric in enumerate(evaluator) if isinstance(metric, dict)]
    return [(name, evaluator)] if isinstance(evaluator, dict) else []


def find_ann_file(entry: Any) -> Path | None:
    """Return the annotation file of a data set or metric; None without one, or where it is not a local file."""
    return _path(entry.get("data_root") or "", entry["ann_file"], entry) if entry.get("ann_file") else None


def find_img_dir(dataset: Any) -> Path | None:
    """Return the folder of a data set's images; None where it is not a local one."""
    folders = _folders(dataset)
    # CocoDataset knows `img`, mmengine's default is `img_path`.
    prefix = next((folders[key] for key in ("data_prefix.img", "data_prefix.img_path") if key in folders), "")
    return _path(dataset.get("data_root") or "", prefix, dataset)


def find_classes(dataset: Any, cfg: Config) -> tuple[str, ...] | None:
    """Return the class names that a data set gives its labels.

    Args:
        dataset: of :func:`datasets`.
        cfg: its config.

    Returns:
        None where the data set does not read its annotations as mmdet's ``CocoDataset`` does.

    Raises:
        ValueError: unknown type of data set, or ``metainfo`` that it cannot read.
    """
    from mmdet.datasets import CocoDataset

    kind = dataset.get("type")
    if isinstance(kind, str):
        with DATASETS.switch_scope_and_registry(cfg.get("default_scope") or "mmdet") as registry:
            kind = registry.get(kind)
    if kind is None:
        raise ValueError(f"unknown type of data set {dataset.get('type')!r}")
    for method in ("load_data_list", "parse_data_info"):
        if getattr(kind, method, None) is not getattr(CocoDataset, method):
            return None
    try:
        classes = kind._load_metainfo(dataset.get("metainfo")).get("classes")
    except (TypeError, OSError) as error:
        raise ValueError(f"metainfo={dataset.get('metainfo')!r} cannot be read: {error}") from error
    # One name is taken for a file of names by mmengine.
    return tuple(classes) if isinstance(classes, (list, tuple)) else None


def check_data(cfg: Config, *splits: str) -> None:
    """Check that annotation files and image folders are there, before anything is built.

    Args:
        cfg: the config.
        splits: of 'train', 'val' and 'test'. Data behind a URL or a storage backend, and data sets of unknown form,
            are left to mmdet.

    Raises:
        FileNotFoundError: a path is missing or an image folder has no image; the message tells the setting.
        ValueError: a file would run code when it is read; likewise.
    """
    for split in splits:
        for where, dataset in datasets(cfg, split):
            check_runs_nothing(dataset, where)
            _check_file(find_ann_file(dataset), f"{where}.ann_file", f"{where}.data_root")
            _check_folders(dataset, where)
        for where, metric in metrics(cfg, split):
            # What else a metric names, it writes.
            check_runs_nothing(metric, where, ("ann_file",))
            _check_file(find_ann_file(metric), f"{where}.ann_file")


def set_data_root(cfg: Config, root: str) -> None:
    """Put another folder in the place of a config's data root, in its data sets and metrics alike.

    As mmdet's ``update_data_root``, for configs of mmdet 3: whatever path begins with the old root begins with the new.
    A config without data sets is left as it is.

    Args:
        cfg: changed in place.
        root: the folder that has what the config's own data root has, such as ``annotations/`` and ``train2017/``.

    Raises:
        ValueError: the config does not name one data root.
    """
    found = [dataset for split in SPLITS for _, dataset in datasets(cfg, split)]
    if not found:
        return
    roots = sorted({str(dataset.get("data_root") or "").rstrip("/") for dataset in found})
    old = cfg.get("data_root") or (roots[0] if len(roots) == 1 else "")
    if not isinstance(old, str) or not old.strip("./"):
        raise ValueError(
            f"the data root of {cfg.filename} cannot be replaced by {root!r}: the config has no data_root of its own, "
            f"and its data sets' are {', '.join(map(repr, roots))}. Give the paths with --cfg-options "
            "train_dataloader.dataset.data_root=..."
        )
    for name in ("data_root", *(f"{split}_{part}" for split in SPLITS for part in ("dataloader", "evaluator"))):
        if cfg.get(name):
            cfg[name] = _moved(cfg[name], f"{old.rstrip('/')}/", f"{root.rstrip('/')}/")


def _moved(node: Any, old: str, new: str) -> Any:
    if isinstance(node, str):
        return new + node[len(old) :] if f"{node}/".startswith(old) else node
    if isinstance(node, dict):
        for key, value in node.items():
            node[key] = _moved(value, old, new)
    elif isinstance(node, (list, tuple)):
        return type(node)(_moved(value, old, new) for value in node)
    return node


def _nested(dataset: Any, where: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(dataset, dict):
        return
    # RepeatDataset, ConcatDataset and the like.
    if "dataset" in dataset:
        yield from _nested(dataset["dataset"], f"{where}.dataset")
    for i, inner in enumerate(dataset.get("datasets") or ()):
        yield from _nested(inner, f"{where}.datasets.{i}")
    if not {"dataset", "datasets"}.intersection(dataset):
        yield where, dataset


def _folders(dataset: Any) -> dict[str, Any]:
    """Return a data set's image folders, below its root, by the setting that each stands in."""
    prefix = dataset.get("data_prefix") or ""
    if isinstance(prefix, dict):
        return {f"data_prefix.{key}": folder for key, folder in prefix.items()}
    if not prefix and dataset.get("type") == "ImageNet":
        return {"split": dataset.get("split", "")}
    # One folder by itself, which mmpretrain takes too; without any, its CustomDataset reads the root.
    return {"data_prefix": prefix} if prefix or dataset.get("type") == "CustomDataset" else {}


def _path(root: str, path: Any, owner: Any) -> Path | None:
    # A backend may map local-looking paths to a remote store.
    if not isinstance(path, str) or "://" in root or "://" in path or owner.get("backend_args"):
        return None
    return Path(root) / path


def _check_file(path: Path | None, *settings: str) -> None:
    if path is not None and not path.is_file():
        raise FileNotFoundError(_missing("annotation file", path, "does not exist", *settings))


def _check_folders(dataset: Any, where: str) -> None:
    for key, prefix in _folders(dataset).items():
        folder = _path(dataset.get("data_root") or "", prefix, dataset)
        if folder is None:
            continue
        setting = f"{where}.{key}"
        if not folder.is_dir():
            raise FileNotFoundError(_missing("image folder", folder, "does not exist", setting, f"{where}.data_root"))
        if not any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.rglob("*")):
            raise FileNotFoundError(_missing("image folder", folder, "has no images", setting, f"{where}.data_root"))


def _missing(what: str, path: Path, state: str, *settings: str) -> str:
    options = " or ".join(f"{setting}=..." for setting in settings)
    return (
        f"{what} {str(path)!r} ({settings[0]}) {state}, seen from {Path.cwd()}. Put the data there, or point "
        f"elsewhere with --data-root DIR or --cfg-options {options}; tools/quickstart.py makes the digits, "
        "tools/download_coco.py fetches COCO."
    )
