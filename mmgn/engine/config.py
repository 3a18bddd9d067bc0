"""From a command line to a config."""

import difflib
import importlib.util
import os
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmgn.engine.data import metrics, set_data_root

#: The configs, in a checkout and in an installed wheel alike.
CONFIGS = Path(__file__).parent.parent / ".mim" / "configs"


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
    name: str,
    *,
    options: dict[str, Any] | None = None,
    work_dir: str | None = None,
    launcher: str = "none",
    data_root: str | None = None,
) -> Config:
    """Read a config and apply what the command line says, in mmdet's order of precedence.

    Args:
        name: as in :func:`find_config`.
        options: what ``--cfg-options`` gave.
        work_dir: over the config's own ``work_dir``, which is over ``work_dirs/<config name>``.
        launcher: none, pytorch, slurm or mpi.
        data_root: in the place of the config's own (:func:`mmgn.engine.data.set_data_root`); None for the
            environment's ``MMDET_DATASETS``, mmdet's name for it, if set. ``options`` are over both.

    Raises:
        FileNotFoundError: no such config.
        ValueError: it cannot be read, has no data root to replace, or ``options`` do not fit it.
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
    data_root = data_root or os.environ.get("MMDET_DATASETS")
    if data_root:
        set_data_root(cfg, data_root)
    if options:
        try:
            cfg.merge_from_dict(options)
        except (TypeError, KeyError) as error:
            raise ValueError(f"--cfg-options do not fit config {str(path)!r}: {error}") from error
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
        for _, metric in metrics(cfg, split):
            if metric.get("type") in ("CocoMetric", "FastCocoMetric") and not metric.get("outfile_prefix"):
                metric["outfile_prefix"] = str(Path(cfg.work_dir) / "predictions")
