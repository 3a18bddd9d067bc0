"""From a command line to a study: data made, everything checked that can be, and a config for each cell."""

import copy
import importlib.util
import os
from collections.abc import Mapping
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
from mmgn.study.cell import base_groups, pretrained_backbone, put_norm, start_from, write_config
from mmgn.study.grid import Cell, Request, check_groups, default_groups, make_grid
from mmgn.study.study import Options, Study
from mmgn.study.tasks import TASKS, Defaults


def plan(options: Options) -> Study:
    """Plan a study, and write its cells' configs.

    Raises:
        ValueError: values that make no sense, alone, together, or for the base config.
        FileNotFoundError: the data, or the config, are not there.
        FileExistsError: the study's folder has other embedded data in it.
        ImportError: a package is missing.
    """
    study = Study(replace(options, out=options.out.resolve()))
    task, defaults = TASKS[options.task], _defaults(study)
    request = _request(options, defaults)
    for package in (task.package, "matplotlib"):
        if importlib.util.find_spec(package) is None:
            raise ImportError(f'no package {package}: pip install -e ".[ecosystem]"')
    # It would move the data of the cells' configs, too.
    os.environ.pop("MMDET_DATASETS", None)
    config = str(find_config(options.config or (task.embedded if study.embedded else task.full)))
    base = load_config(config)
    own = {name: load_config(config, data_root=str(root)) for name, root in _data(study, request.data).items()}
    for cfg in own.values():
        check_data(cfg, "train", "val")

    channels = [norm.num_channels for norm in norm_layers(build_model(base))]
    asked = options.groups is not None or options.channels_per_group is not None
    if defaults.group_table and "GN" in request.norms and not asked:
        numbers = default_groups(channels)
        request = replace(request, groups=numbers, channels_per_group=numbers)
    check_groups(request, channels)
    if task.pretrained and not study.embedded:
        study.pretrained = pretrained_backbone(base)
    study.cells = make_grid(request, base_groups(base), own_pretraining=not study.pretrained)
    study.largest = max(request.batch_sizes)
    images = {name: schedule.count_images(cfg) for name, cfg in own.items()}
    epochs = options.epochs or defaults.epochs
    for cell in study.cells:
        _plan_cell(study, cell, base, own[cell.data], images[cell.data], epochs)
    study.head = _head(study, request, base, images, epochs)
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
        return {names[0]: Path(study.options.data).resolve()}
    folders = {name: study.options.out / "data" / name for name in names}
    for name, folder in folders.items():
        study.task.makers[name](folder)
    return folders


def _plan_cell(study: Study, cell: Cell, base: Config, own: Config, num_images: int, epochs: int | None) -> None:
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
    write_config(study.config(cell), base, cfg)
    total = cell.batch_size * processes
    study.settings[cell] = "\n".join(sorted(flat(cfg._cfg_dict.to_dict(), "cfg"))) + "\n"
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
    """Have BN's cells keep their last weights, as BN* may be asked for later; with a launcher all cells keep theirs."""
    hook = dict(type="CheckpointHook") | cfg.get("default_hooks", {}).get("checkpoint", {}) | dict(save_best=None)
    if study.options.launcher == "none":
        # -1: at the end, if at all.
        hook |= dict(interval=-1, save_last=cell.norm == "BN", save_optimizer=False, save_param_scheduler=False)
    else:
        # To go on from, too.
        hook["max_keep_ckpts"] = 1
    cfg.default_hooks = dict(cfg.get("default_hooks", {}), checkpoint=hook)


def _head(study: Study, request: Request, base: Config, images: Mapping[str, int], epochs: int | None) -> list[str]:
    """Return what is varied and what is held, for people."""
    sizes, norms = (", ".join(map(str, values)) for values in (request.batch_sizes, request.norms))
    (groups,) = (f"{key}={value}" for key, value in base_groups(base).items())
    processes = study.options.processes
    lines = [
        f"task: {study.options.task}, {len(study.cells)} cells",
        f"varied: norm ({norms}; GN has {groups}, LN 1 group, IN 1 channel per group); "
        f"batch size per process ({sizes}); seed (0 to {request.seeds - 1}); data ({', '.join(request.data)})",
    ]
    for name, values in (("groups", request.groups), ("channels per group", request.channels_per_group)):
        if values:
            where = f"at batch {study.largest} on {request.data[0]}"
            lines.append(f"varied: {name} of GN ({', '.join(map(str, values))}) {where}; 1 is {_EXTREME[name]}")
    wanted = set(make_grid(request, base_groups(base), own_pretraining=False))
    added = [cell for cell in study.cells if cell not in wanted]
    if added:
        count = f"{len(added)} cell{'s' * (len(added) > 1)}"
        lines.append(f"added: {count} of BN at batch {study.largest}, whose weights BN* starts from")
    if study.pretrained:
        lines.append(f"start: random weights; BN* has those of {study.pretrained} in its backbone")
    else:
        lines.append("start: random weights; BN* has those of the BN cell of the largest batch, same data and seed")
    rate, batch = schedule.base_lr(base), schedule.base_batch_size(base)
    seen = "; ".join(f"{_budget(base, count, epochs)} of {name}" for name, count in images.items())
    return [
        *lines,
        f"held: model, augmentation, optimizer and evaluation of {Path(base.filename).name}; {processes} "
        f"process{'es' * (processes > 1)}",
        f"held: the budget in images: {seen}; the last batch of an epoch is left out where images do not fill it",
        f"held: the learning rate by the linear rule, {rate:g} for {batch} images; warm-up and steps come after the "
        "same number of images",
        "held: one validation, of the last weights",
    ]


_EXTREME = {"groups": "LN", "channels per group": "IN"}


def _budget(base: Config, num_images: int, epochs: int | None) -> str:
    if epochs is None and "max_iters" in base.train_cfg:
        return f"{base.train_cfg.max_iters * schedule.base_batch_size(base)} images"
    epochs = epochs or base.train_cfg.max_epochs
    return f"{epochs * num_images} images ({epochs} x {num_images})"
