"""Weights of one code base under the names of another, by way of mmdet's."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from mmgn.weights import background
from mmgn.weights.layouts import LAYOUTS, STAGES, count_blocks, depth_name, stages_prefix, table
from mmgn.weights.report import STATISTICS, Report, notes

Shapes = Mapping[str, Sequence[int]]

# DataParallel's and DistributedDataParallel's.
_WRAPPED = "module."
# What is not a weight, by how its key begins or ends.
_NO_WEIGHTS = {
    STATISTICS: ("", (".running_mean", ".running_var", ".num_batches_tracked")),
    "momentum of Detectron's optimizer": ("", ("_momentum",)),
    "anchors, which mmdet makes from its config": ("proposal_generator.anchor_generator.", ("",)),
    "normalization of the input": ("pixel_", ("mean", "std")),
}


def convert(
    state: Mapping[str, Any], to: str = "mmdet", *, source: str | None = None, model: Shapes | None = None
) -> tuple[dict[str, Tensor], Report]:
    """Rename weights, and reorder the outputs where background's place differs.

    Args:
        state: the weights by their keys, as :func:`mmgn.weights.read_checkpoint` returns them; a ``module.`` that all
            begin with is left off.
        to: name of the layout wanted, one of ``LAYOUTS``.
        source: name of the layout at hand [recognized by the keys].
        model: shapes by the keys of the mmdet model that the weights are for, or come from; its backbone must fit,
            keys of heads that do not fit are left out.

    Returns:
        The weights, their dtypes and values unchanged, and what became of each key.

    Raises:
        ValueError: the layout is not known; the backbone is no plain ResNet with a norm behind each convolution; the
            model's backbone is another one.
    """
    if to not in LAYOUTS:
        raise ValueError(f"no layout is called {to!r}; there are {', '.join(LAYOUTS)}.")
    wrapped = all(key.startswith(_WRAPPED) for key in state)
    if wrapped:
        state = {key.removeprefix(_WRAPPED): value for key, value in state.items()}
    found, detector = _recognize(state, source)
    blocks = count_blocks(state, LAYOUTS[found], detector=detector)
    names = _reading(found, blocks, detector)
    # A number by a weight's name is none.
    known = {k: value for k, value in state.items() if k in names and isinstance(value, Tensor) and value.ndim}
    ours = {names[key]: value for key, value in known.items()}
    if len(ours) < len(known):
        raise ValueError("some weights are there twice, under two spellings (gn and bn, _mask and _[mask]).")
    trunk = LAYOUTS["mmdet"].prefix if detector else ""
    bottleneck = f"{trunk}layer1.0.conv3.weight" in ours
    _check_backbone(state, ours, trunk, blocks, 3 if bottleneck else 2)

    report = Report(found, to, detector, depth_name(blocks, bottleneck))
    if found == "detectron":
        ours = background.to_last(ours)
    if model is not None:
        ours = _fit(ours, model, report)
    if to == "detectron":
        ours = background.to_first(ours)
    mask = "_mask" if "roi_head.mask_head.convs.0.gn.weight" in ours else "_[mask]"
    target = table(LAYOUTS[to], blocks, detector=detector, mask=mask)
    for key in state:
        _account(key, names.get(key, ""), ours, target, report)
    _check_stages(report)
    report.notes += notes(state, report)
    if wrapped:
        report.notes.append(f"the keys began with {_WRAPPED!r}, as a model wrapped for DDP saves them; it is left off.")
    return {target[key]: value for key, value in ours.items() if key in target}, report


def _reading(name: str, blocks: Sequence[int], detector: bool) -> dict[str, str]:
    """Return mmdet's key by the layout's, in all spellings."""
    layout = LAYOUTS[name]
    norms = ("gn", "bn") if name == "mmdet" else (layout.norm,)
    tables = [
        table(layout, blocks, detector=detector, norm=norm, mask=mask)
        for norm in norms
        for mask in ("_mask", "_[mask]")
    ]
    return {theirs: ours for names in tables for ours, theirs in names.items()}


def _recognize(state: Mapping[str, Any], wanted: str | None) -> tuple[str, bool]:
    """Return the layout that explains most keys, and whether it is a detector's."""
    best, most = ("", False), 0
    for name, layout in LAYOUTS.items():
        if wanted not in (None, name):
            continue
        for detector in (False, True) if layout.detectors else (False,):
            blocks = count_blocks(state, layout, detector=detector)
            known = len(_reading(name, blocks, detector).keys() & state.keys()) if all(blocks) else 0
            if known > most:
                best, most = (name, detector), known
    if most == 0:
        raise ValueError(
            f"these are not the weights of a ResNet of four stages, alone or in Mask R-CNN with FPN, as "
            f"{wanted or ', '.join(LAYOUTS)} names them: the {len(state)} keys are such as {list(state)[:3]}."
        )
    return best


def _check_backbone(
    state: Mapping[str, Any], ours: Mapping[str, Tensor], trunk: str, blocks: Sequence[int], convs_of_block: int
) -> None:
    """Refuse a backbone that lacks a convolution, or a norm behind one."""
    stem = f"{trunk}conv1.weight"
    if stem not in ours:
        raise ValueError(f"there is no {stem}: stems of several convolutions (ResNetV1c, V1d) have no known names.")
    places = [
        (s, b, n + 1) for s, c in zip(STAGES, blocks, strict=True) for b in range(c) for n in range(convs_of_block)
    ]
    convs = [stem, *(f"{trunk}layer{s}.{b}.conv{n}.weight" for s, b, n in places)]
    absent = [key for key in convs if key not in ours]
    if absent:
        raise ValueError(
            f"{len(absent)} of {len(convs)} convolutions of the backbone are missing, {absent[0]} the first."
        )
    convs += [key for key in ours if key.startswith(f"{trunk}layer") and "downsample" in key and ours[key].ndim == 4]
    norms = {key: ours.get(key.replace("conv", "gn").replace("downsample.0", "downsample.1")) for key in convs}
    bare = [key for key, norm in norms.items() if norm is None or norm.ndim != 1]
    if not bare:
        return
    folded = any(key.endswith("_bn_s") for key in state)
    why = "Detectron has folded batch norm's statistics into scale and bias there: those are no norm's gamma and beta"
    raise ValueError(
        f"{len(bare)} of {len(convs)} convolutions of the backbone have no norm by a known name, {bare[0]} the first. "
        f"{why + '.' if folded else 'These are not the weights of a backbone with group norm.'}"
    )


def _check_stages(report: Report) -> None:
    start = stages_prefix(LAYOUTS[report.source], detector=report.detector)
    inside = [key for key in report.unmatched if key.startswith(start)]
    if inside:
        raise ValueError(
            f"{len(inside)} weights of the backbone's stages, {inside[0]} the first, have no known name: without them "
            "(squeeze-and-excitation, deformable convolutions, ...) it would be another network."
        )


def _fit(ours: dict[str, Tensor], model: Shapes, report: Report) -> dict[str, Tensor]:
    """Leave out what has another shape in the model; refuse another backbone."""
    prefix = LAYOUTS["mmdet"].prefix
    if not report.detector and any(key.startswith(prefix) for key in model):
        model = {key.removeprefix(prefix): shape for key, shape in model.items() if key.startswith(prefix)}
    trunk = prefix if report.detector else ""
    blocks = count_blocks(model, LAYOUTS["mmdet"], detector=report.detector)
    if not any(blocks):
        raise ValueError(f"the model has no ResNet by mmdet's keys; they are such as {list(model)[:3]}.")
    depth = depth_name(blocks, f"{trunk}layer1.0.conv3.weight" in model)
    if depth != report.depth:
        raise ValueError(f"the weights are of another depth: they hold {report.depth}, and the model has {depth}.")

    shapes = {key: (tuple(ours[key].shape), tuple(shape)) for key, shape in model.items() if key in ours}
    report.mismatched = {key: pair for key, pair in shapes.items() if pair[0] != pair[1]}
    report.missing = [key for key in model if key not in ours and not key.endswith(_NO_WEIGHTS[STATISTICS][1])]
    report.unexpected = [key for key in ours if key not in model]
    unfit = [key for key in (*report.mismatched, *report.missing) if not report.detector or key.startswith(trunk)]
    if unfit:
        have, want = report.mismatched.get(unfit[0], ("not in the weights", tuple(model[unfit[0]])))
        raise ValueError(
            f"the model's backbone is another one than the weights': {len(unfit)} of its weights differ, the first "
            f"{unfit[0]}: {have}, the model's {want}. Has its norm_cfg group norm, and are width and stem the same?"
        )
    return {key: value for key, value in ours.items() if key not in report.mismatched}


def _account(key: str, name: str, ours: Mapping[str, Tensor], target: Mapping[str, str], report: Report) -> None:
    if name in ours and name in target:
        report.matched[key] = target[name]
        return
    for why, (start, ends) in _NO_WEIGHTS.items():
        if key.startswith(start) and key.endswith(ends):
            report.dropped.setdefault(why, []).append(key)
            return
    if name not in report.mismatched:
        report.unmatched.append(key)
