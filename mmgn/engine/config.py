"""From a command line to a config that is known to be runnable: paths found, data there."""

import difflib
from pathlib import Path
from typing import Any

from mmengine.config import Config

#: The configs, in a checkout and in an installed wheel alike.
CONFIGS = Path(__file__).parent.parent / ".mim" / "configs"


def find_config(name: str) -> Path:
    """Return the path of a config given by path, or by its path below ``configs/``.

    Args:
        name: such as ``my_config.py`` or ``digits/mask-rcnn_r18-mini_fpn_fusedgn-all_digits.py``.

    Raises:
        FileNotFoundError: neither exists; the message names the configs with the closest names.
    """
    for path in (Path(name), CONFIGS / name):
        if path.is_file():
            return path
    ours = {p.name: p for p in CONFIGS.rglob("*.py") if "_base_" not in p.parts}
    close = difflib.get_close_matches(Path(name).name, list(ours), n=3, cutoff=0.4)
    hint = f"close names here: {', '.join(str(ours[c]) for c in close)}" if close else f"configs lie in {CONFIGS}"
    raise FileNotFoundError(f"config {name!r} does not exist (looked from {Path.cwd()} and in {CONFIGS}); {hint}.")


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
    """
    path = find_config(name)
    cfg = Config.fromfile(path)
    cfg.launcher = launcher
    if options:
        cfg.merge_from_dict(options)
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get("work_dir") is None:
        cfg.work_dir = str(Path("work_dirs") / path.stem)
    return cfg


def check_data(cfg: Config, *splits: str) -> None:
    """Check that the annotation files and image folders of data loaders exist, before anything is built.

    Args:
        cfg: the config.
        splits: of 'train', 'val' and 'test'. Files behind a URL and data sets of unknown form are left to mmdet.

    Raises:
        FileNotFoundError: a path is missing or an image folder is empty; the message tells which setting holds it.
    """
    for split in splits:
        loader = cfg.get(f"{split}_dataloader")
        if loader is not None:
            _check_dataset(loader.get("dataset", {}), f"{split}_dataloader.dataset")


def _check_dataset(dataset: Any, where: str) -> None:
    if not isinstance(dataset, dict):
        return
    # RepeatDataset, ConcatDataset and the like.
    if "dataset" in dataset:
        _check_dataset(dataset["dataset"], f"{where}.dataset")
    for i, inner in enumerate(dataset.get("datasets", ())):
        _check_dataset(inner, f"{where}.datasets[{i}]")
    root = dataset.get("data_root") or ""
    if dataset.get("ann_file"):
        path = _join(root, dataset["ann_file"])
        if path is not None and not path.is_file():
            raise FileNotFoundError(_missing("annotation file", path, f"{where}.ann_file", root))
    for key, prefix in (dataset.get("data_prefix") or {}).items():
        path = _join(root, prefix)
        if path is not None and not path.is_dir():
            raise FileNotFoundError(_missing("image folder", path, f"{where}.data_prefix.{key}", root))
        if path is not None and next(path.iterdir(), None) is None:
            raise FileNotFoundError(_missing("image folder", path, f"{where}.data_prefix.{key}", root, "is empty"))


def _join(root: str, path: str) -> Path | None:
    return None if "://" in root or "://" in path else Path(root) / path


def _missing(what: str, path: Path, where: str, root: str, state: str = "does not exist") -> str:
    digits = " The digits are made by: python tools/quickstart.py." if "digits" in str(path) else ""
    return (
        f"{what} {str(path)!r} ({where}) {state}, seen from {Path.cwd()}. Put the data there, or point to it with "
        f"--cfg-options {where.partition('.')[0]}.dataset.data_root=... (now {root!r}).{digits}"
    )
