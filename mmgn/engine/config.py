"""From a command line to a config that is known to be runnable: paths found, data there."""

import difflib
import importlib.util
from pathlib import Path
from typing import Any

from mmengine.config import Config

#: The configs, in a checkout and in an installed wheel alike.
CONFIGS = Path(__file__).parent.parent / ".mim" / "configs"
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}


def find_config(name: str) -> Path:
    """Return the path of a config given by path, by its path below ``configs/``, or below a package's.

    Args:
        name: such as ``my_config.py``, ``digits/mask-rcnn_r18-mini_fpn_fusedgn-all_digits.py`` or
            ``mmdet::retinanet/retinanet_r50_fpn_1x_coco.py``, as in a ``_base_``.

    Raises:
        FileNotFoundError: neither exists; the message names the configs with the closest names.
    """
    package, _, below = name.rpartition("::")
    folder = package_configs(package) if package else CONFIGS
    for path in (Path(name), *([folder / below] if folder else [])):
        if path.is_file():
            return path
    if package:
        where = f"not in {folder}" if folder else f"no package {package!r} with configs is installed"
        raise FileNotFoundError(f"config {name!r} does not exist: {where}.")
    ours = {p.name: p for p in CONFIGS.rglob("*.py") if "_base_" not in p.parts}
    close = difflib.get_close_matches(Path(name).name, list(ours), n=3, cutoff=0.4)
    hint = f"close names here: {', '.join(str(ours[c]) for c in close)}" if close else f"configs lie in {CONFIGS}"
    raise FileNotFoundError(f"config {name!r} does not exist (looked from {Path.cwd()} and in {CONFIGS}); {hint}.")


def package_configs(package: str) -> Path | None:
    """Return the folder of the configs that an installed package ships, None if there is none."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    configs = Path(next(iter(spec.submodule_search_locations)), ".mim", "configs")
    return configs.resolve() if configs.is_dir() else None


def load_config(
    name: str, *, options: dict[str, Any] | None = None, work_dir: str | None = None, launcher: str = "none"
) -> Config:
    """Read a config and apply what the command line says, in mmdet's order of precedence.

    Args:
        name: as in :func:`find_config`.
        options: what ``--cfg-options`` gave.
        work_dir: over the config's own ``work_dir``, which is over ``work_dirs/<config name>``.
        launcher: none, pytorch, slurm or mpi.

    Raises:
        FileNotFoundError: no such config.
        ValueError: it cannot be read.
    """
    path = find_config(name)
    try:
        cfg = Config.fromfile(path)
    # A file that is no config, a _base_ that is not there; and a config is code, which may raise anything.
    except Exception as error:
        raise ValueError(
            f"config {str(path)!r} cannot be read, or one of its _base_ files: {type(error).__name__}: {error}"
        ) from error
    cfg.launcher = launcher
    if options:
        cfg.merge_from_dict(options)
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get("work_dir") is None:
        cfg.work_dir = str(Path("work_dirs") / path.stem)
    return cfg


def record_run(cfg: Config) -> None:
    """Have the run leave what a report is made of: run.json, and its predictions beside it as COCO json.

    Args:
        cfg: changed in place. A ``RunRecordHook`` or an ``outfile_prefix`` of its own is left as it is.
    """
    hooks = cfg.get("custom_hooks") or []
    if not any(hook.get("type") == "RunRecordHook" for hook in hooks):
        cfg.custom_hooks = [*hooks, dict(type="RunRecordHook")]
    for split in ("val", "test"):
        for _, metric in _metrics(cfg, split):
            if metric.get("type") == "CocoMetric" and not metric.get("outfile_prefix"):
                metric["outfile_prefix"] = str(Path(cfg.work_dir) / "predictions")


def check_data(cfg: Config, *splits: str) -> None:
    """Check that annotation files and image folders are there, before anything is built.

    Args:
        cfg: the config.
        splits: of 'train', 'val' and 'test'. Data behind a URL or a storage backend, and data sets of unknown form,
            are left to mmdet.

    Raises:
        FileNotFoundError: a path is missing or an image folder has no image; the message tells the setting.
    """
    for split in splits:
        dataset = (cfg.get(f"{split}_dataloader") or {}).get("dataset")
        if dataset is not None:
            _check_dataset(dataset, f"{split}_dataloader.dataset")
        for where, metric in _metrics(cfg, split):
            if metric.get("ann_file"):
                _check_file(_path("", metric["ann_file"], metric), f"{where}.ann_file")


def _metrics(cfg: Config, split: str) -> list[tuple[str, Any]]:
    evaluator = cfg.get(f"{split}_evaluator")
    name = f"{split}_evaluator"
    if isinstance(evaluator, (list, tuple)):
        return [(f"{name}.{i}", metric) for i, metric in enumerate(evaluator) if isinstance(metric, dict)]
    return [(name, evaluator)] if isinstance(evaluator, dict) else []


def _check_dataset(dataset: Any, where: str) -> None:
    if not isinstance(dataset, dict):
        return
    # RepeatDataset, ConcatDataset and the like.
    if "dataset" in dataset:
        _check_dataset(dataset["dataset"], f"{where}.dataset")
    for i, inner in enumerate(dataset.get("datasets") or ()):
        _check_dataset(inner, f"{where}.datasets.{i}")
    root = dataset.get("data_root") or ""
    if dataset.get("ann_file"):
        _check_file(_path(root, dataset["ann_file"], dataset), f"{where}.ann_file", f"{where}.data_root")
    for key, prefix in (dataset.get("data_prefix") or {}).items():
        folder = None if prefix is None else _path(root, prefix, dataset)
        if folder is None:
            continue
        setting = f"{where}.data_prefix.{key}"
        if not folder.is_dir():
            raise FileNotFoundError(_missing("image folder", folder, "does not exist", setting, f"{where}.data_root"))
        if not any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.rglob("*")):
            raise FileNotFoundError(_missing("image folder", folder, "has no images", setting, f"{where}.data_root"))


def _path(root: str, path: Any, owner: Any) -> Path | None:
    # A backend may map local-looking paths to a remote store.
    if not isinstance(path, str) or "://" in root or "://" in path or owner.get("backend_args"):
        return None
    return Path(root) / path


def _check_file(path: Path | None, *settings: str) -> None:
    if path is not None and not path.is_file():
        raise FileNotFoundError(_missing("annotation file", path, "does not exist", *settings))


def _missing(what: str, path: Path, state: str, *settings: str) -> str:
    options = " or ".join(f"{setting}=..." for setting in settings)
    return (
        f"{what} {str(path)!r} ({settings[0]}) {state}, seen from {Path.cwd()}. Put the data there, or point "
        f"elsewhere with --cfg-options {options}; tools/quickstart.py makes the digits."
    )
