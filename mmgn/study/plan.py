"""From a command line to a study: data made, everything checked that can be, and each cell's config planned."""

import copy
import importlib.util
import os
from dataclasses import replace
from pathlib import Path

import torch
from mmengine.config import Config

from mmgn.engine.config import find_config, load_config
from mmgn.engine.data import check_data
from mmgn.engine.model import build_model
from mmgn.engine.norm_swap.diff import flat
from mmgn.models.norms import norm_layers
from mmgn.study import schedule
from mmgn.study.cell import base_groups, check_norms, pretrained_backbone, put_norm, start_from
from mmgn.study.grid import Cell, Request, check_groups, default_groups, make_grid
from mmgn.study.head import head
from mmgn.study.study import Options, Study
from mmgn.study.tasks import TASKS, Defaults


def plan(options: Options) -> Study:
    """Plan a study; of its folder only the data are written.

    Raises:
        ValueError: values that make no sense, alone, together, or for the base config.
        FileNotFoundError: the data, or the config, are not there.
        FileExistsError: the study's folder has other embedded data in it.
        ImportError: a package is missing.
    """
    study = Study(replace(options, out=options.out.resolve()))
    task, defaults = TASKS[options.task], _defaults(study)
    request = _request(options, defaults)
    # matplotlib: better now than after the grid.
    for package in (task.package, "matplotlib"):
        if importlib.util.find_spec(package) is None:
            raise ImportError(f'no package {package}: pip install -e ".[ecosystem]"')
    # It would move the data of the cells' configs, too.
    os.environ.pop("MMDET_DATASETS", None)
    config = str(find_config(options.config or (task.embedded if study.embedded else task.full)))
    base = study.base = load_config(config)
    scope = base.get("default_scope") or "mmdet"
    if scope != task.package:
        raise ValueError(f"{config} is a config of {scope}, and {options.task} needs one of {task.package}")
    own = {name: load_config(config, data_root=str(root)) for name, root in _data(study, request.data).items()}
    for cfg in own.values():
        check_data(cfg, "train", "val")

    # A detector takes its config apart when it is built.
    channels = [norm.num_channels for norm in norm_layers(build_model(copy.deepcopy(base)))]
    asked = options.groups is not None or options.channels_per_group is not None
    if defaults.group_table and "GN" in request.norms and not asked:
        numbers = default_groups(channels)
        request = replace(request, groups=numbers, channels_per_group=numbers)
    check_groups(request, channels)
    if task.pretrained and not study.embedded:
        study.pretrained = pretrained_backbone(base)
    study.cells = make_grid(request, base_groups(base), own_pretraining=not study.pretrained)
    study.largest = max(request.batch_sizes)
    for cell in {cell.norm: cell for cell in study.cells}.values():
        check_norms(base, cell)
    images = {name: schedule.count_images(cfg, "train") for name, cfg in own.items()}
    for cfg in own.values():
        schedule.count_images(cfg, "val")
    epochs = options.epochs or defaults.epochs
    for cell in study.in_order(study.cells):
        _plan_cell(study, cell, own[cell.data], images[cell.data], epochs)
    study.head = head(study, request, base, images, epochs)
    return study


def _defaults(study: Study) -> Defaults:
    if not study.embedded:
        if study.options.quick:
            raise ValueError(f"--quick is for embedded data, got --data {study.options.data}; --epochs N shortens any")
        return study.task.full_defaults
    return study.task.quick if study.options.quick else study.task.defaults


def _request(options: Options, defaults: Defaults) -> Request:
    if options.epochs is not None and options.epochs < 1:
        raise ValueError(f"--epochs must be at least 1, got {options.epochs}")
    if options.processes > 1 and options.launcher == "none":
        raise ValueError(f"--gpus {options.processes} needs --launcher pytorch or slurm: without, a training has one")
    data = defaults.data
    if options.data != "embedded":
        data = (options.data if options.data in TASKS[options.task].makers else Path(options.data).resolve().name,)
    return Request(
        norms=defaults.norms if options.norms is None else options.norms,
        batch_sizes=defaults.batch_sizes if options.batch_sizes is None else options.batch_sizes,
        seeds=defaults.seeds if options.seeds is None else options.seeds,
        data=data,
        groups=options.groups or (),
        channels_per_group=options.channels_per_group or (),
    )


def _data(study: Study, names: tuple[str, ...]) -> dict[str, Path]:
    """Return the data sets' folders, once those that are made on the spot are there."""
    if not study.embedded:
        root = Path(study.options.data).resolve()
        if not root.is_dir():
            known = ", ".join(study.task.makers)
            raise FileNotFoundError(f"--data: no folder {root}; generated data sets are {known}")
        return {names[0]: root}
    folders = {name: study.options.out / "data" / name for name in names}
    for name, folder in folders.items():
        study.task.makers[name](folder)
    return folders


def _plan_cell(study: Study, cell: Cell, own: Config, num_images: int, epochs: int | None) -> None:
    cfg, processes = copy.deepcopy(own), study.options.processes
    iterations = schedule.fit(cfg, cell.batch_size, processes, num_images, epochs)
    put_norm(cfg, cell)
    model = study.waits_for(cell)
    start_from(cfg, _weights(study, model, cfg) if model else study.pretrained if cell.norm == "BN*" else None)
    cfg.randomness = dict(cfg.get("randomness") or {}, seed=cell.seed)
    # An evaluation of what is not finite would go through as a bad figure.
    cfg.custom_hooks = [*(cfg.get("custom_hooks") or []), dict(type="mmdet.CheckInvalidLossHook", interval=1)]
    _keep_weights(study, cell, cfg)
    if study.options.launcher == "none" and not torch.cuda.is_available():
        # A worker would take the core that trains.
        for split in ("train", "val", "test"):
            if cfg[f"{split}_dataloader"].get("num_workers"):
                cfg[f"{split}_dataloader"].update(num_workers=0, persistent_workers=False)
    study.configs[cell] = cfg
    total = cell.batch_size * processes
    settings = "\n".join(sorted(flat(cfg.to_dict(), "cfg"))) + "\n"
    # A study's folder may be moved.
    study.settings[cell] = settings.replace(str(study.options.out), "OUT")
    study.facts[cell] = {
        "task": study.options.task,
        "processes": processes,
        "total_batch": total,
        "lr": f"{cfg.optim_wrapper.optimizer.lr:.6g}",
        "images": iterations * total,
        "iterations": iterations,
        "start": model.id if model else study.pretrained if cell.norm == "BN*" else "scratch",
        "config": os.path.relpath(study.config(cell), study.options.out),
    }


def _weights(study: Study, model: Cell, cfg: Config) -> str:
    """Return where a cell's last weights are; every cell of a study has as many epochs, not as many iterations."""
    if "max_iters" not in cfg.train_cfg:
        return str(study.folder(model) / f"epoch_{cfg.train_cfg.max_epochs}.pth")
    return str(study.folder(model) / f"iter_{study.facts[model]['iterations']}.pth")


def _keep_weights(study: Study, cell: Cell, cfg: Config) -> None:
    """Have BN's cells keep their last weights, as BN* may be asked for later, and long trainings their state."""
    by_epoch = "max_iters" not in cfg.train_cfg
    hook = dict(type="CheckpointHook") | cfg.get("default_hooks", {}).get("checkpoint", {})
    hook |= dict(by_epoch=by_epoch, save_best=None)
    if study.from_the_beginning:
        # -1: at the end, if at all.
        hook |= dict(interval=-1, save_last=cell.norm == "BN", save_optimizer=False, save_param_scheduler=False)
    else:
        # To go on from, too.
        hook["max_keep_ckpts"] = 1
    cfg.default_hooks = dict(cfg.get("default_hooks", {}), checkpoint=hook)
