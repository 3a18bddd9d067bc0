"""Which sizes a config's batches of images have."""

from collections.abc import Iterable, Iterator
from itertools import product
from typing import Any

from mmengine.config import Config

#: How many times as long as wide images are taken to be at most; nearly all photographs are less.
LONGEST = 2
_RESIZES = ("Resize", "FixScaleResize", "RandomResize", "RandomChoiceResize")
# What else has a say in the size, each in a way of its own.
_OTHERS = ("RandomCrop", "MinIoURandomCrop", "CenterCrop", "Expand", "Mosaic", "CachedMosaic", "Pad", "FixShapeResize")

Size = tuple[int, int]


def batch_sizes(cfg: Config, split: str) -> set[Size]:
    """Return (H, W), H <= W, of the batches that the pipeline of a split makes, padded.

    Images that keep their ratio come in many sizes: up to ``LONGEST`` times as long as wide here. Turned ones are left
    out, as the kernels look at H*W alone.

    Args:
        cfg: the config.
        split: 'train', 'val' or 'test'.

    Raises:
        ValueError: the pipeline does not tell the sizes.
    """
    transforms = list(_typed((cfg.get(f"{split}_dataloader") or {}).get("dataset") or {}))
    others = sorted({name for name, _ in transforms}.intersection(_OTHERS))
    if split == "train" and cfg.model.get("data_preprocessor", {}).get("batch_augments"):
        others.append("batch_augments")
    scales = [(t, _scales(name, t, _divisor(cfg))) for name, t in transforms if name in _RESIZES]
    if others or not scales or not all(s for _, s in scales):
        why = f"it has {', '.join(others)}" if others else "it has no Resize of a known scale"
        raise ValueError(
            f"the images' sizes cannot be read off {split}_dataloader.dataset ({why}); give them with --size H W"
        )
    sizes: set[Size] = set()
    for transform, choices in scales:
        for scale in choices:
            sizes.update(_kept_ratio(min(scale), max(scale), _divisor(cfg)) if transform.get("keep_ratio") else [scale])
    return {padded(cfg, size) for size in sizes}


def padded(cfg: Config, size: Iterable[int]) -> Size:
    """Return a size as the model sees it: the sides, the shorter first, up to a multiple of ``pad_size_divisor``."""
    divisor = _divisor(cfg)
    height, width = sorted(-(-side // divisor) * divisor for side in size)
    return height, width


def _divisor(cfg: Config) -> int:
    return cfg.model.get("data_preprocessor", {}).get("pad_size_divisor", 1)


def _typed(node: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield all that has a type, with the type's bare name, however deep."""
    if isinstance(node, dict):
        if "type" in node:
            kind = node["type"]
            yield (kind if isinstance(kind, str) else kind.__name__).rsplit(".", 1)[-1], node
        node = node.values()
    elif not isinstance(node, (list, tuple)):
        return
    for value in node:
        yield from _typed(value)


def _scales(name: str, transform: dict[str, Any], step: int) -> list[Size]:
    """Return the scales a resize chooses from, of a range those ``step`` apart; none where they are not given so."""
    given = transform.get("scales") or transform.get("scale")
    if not isinstance(given, (list, tuple)) or transform.get("ratio_range"):
        return []
    scales: list[Size] = [tuple(given)] if isinstance(given[0], int) else [tuple(scale) for scale in given]
    if name != "RandomResize":
        return scales
    ranges = [(*range(min(ends), max(ends), step), max(ends)) for ends in zip(*scales, strict=True)]
    return list(product(*ranges))


def _kept_ratio(short: int, long: int, step: int) -> Iterator[Size]:
    """Yield sizes of images scaled to ``short`` or, if that is less, ``long``: those ``step`` apart."""
    longest = min(long, LONGEST * short)
    yield from ((short, side) for side in (*range(short, longest, step), longest))
    yield from ((side, long) for side in range(-(-long // LONGEST), short, step))
