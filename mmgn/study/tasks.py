"""What is studied: for each task its base configs, data, metrics, and the grids that it is run on by default."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

#: As the paper names them; BN* is batch norm frozen with the statistics and weights of a trained model.
NORMS = ("BN", "BN*", "SyncBN", "GN", "LN", "IN")


@dataclass(frozen=True)
class Defaults:
    """What the command line leaves out.

    Attributes:
        norms: of :data:`NORMS`.
        batch_sizes: images per process and iteration.
        seeds: how many.
        data: names of embedded data sets.
        epochs: None for the config's.
        group_table: whether group numbers are varied too, all that the model's channels allow.
    """

    norms: tuple[str, ...]
    batch_sizes: tuple[int, ...]
    seeds: int
    data: tuple[str, ...] = ()
    epochs: int | None = None
    group_table: bool = False


@dataclass(frozen=True)
class Task:
    """A task of the study.

    Attributes:
        package: the OpenMMLab package that has its models.
        embedded: config for the data made on the spot.
        full: config for data of the user's.
        makers: by name of an embedded data set, what makes it in a folder.
        metrics: from the validation's figures to the columns of study.csv, in percent.
        columns: of study.csv that ``metrics`` gives.
        pretrained: whether on data of the user's BN* starts from torchvision's weights, not from the study's own BN.
        defaults: of embedded data.
        quick: of ``--quick``.
        full_defaults: of data of the user's.
    """

    package: str
    embedded: str
    full: str
    makers: Mapping[str, Callable[[Path], object]]
    metrics: Callable[[Mapping[str, float]], dict[str, float]]
    columns: tuple[str, ...]
    defaults: Defaults
    quick: Defaults
    full_defaults: Defaults
    pretrained: bool = False


def _digit_images(lit: bool) -> Callable[[Path], object]:
    def make(folder: Path) -> object:
        from mmgn.datasets.digit_images import make_digit_images

        return make_digit_images(folder, lit=lit)

    return make


def _digits(folder: Path) -> object:
    from mmgn.datasets.digits import make_digits

    return make_digits(folder)


def _digit_semantics(folder: Path) -> object:
    from mmgn.datasets.digit_semantics import write_semantic_maps
    from mmgn.datasets.digits import make_digits

    return write_semantic_maps(make_digits(folder))


def _top1_error(metrics: Mapping[str, float]) -> dict[str, float]:
    return {"top1_error": 100 - metrics["accuracy/top1"]}


def _ap(metrics: Mapping[str, float]) -> dict[str, float]:
    kinds = (("box", "bbox"), ("mask", "segm"))
    # mmdet's metric gives no figures where nothing at all is detected.
    return {f"{name}_AP": 100 * metrics[f"coco/{kind}_mAP"] if metrics else 0.0 for name, kind in kinds}


def _miou(metrics: Mapping[str, float]) -> dict[str, float]:
    return {"mIoU": metrics["mIoU"]}


_ALL = ("BN", "BN*", "GN", "LN", "IN")

TASKS = {
    "classification": Task(
        package="mmpretrain",
        embedded="classification/resnet-mini_fusedgn_digits.py",
        full="classification/resnet50_fusedgn_8xb32_in1k.py",
        makers={"digits-lit": _digit_images(lit=True), "digits-plain": _digit_images(lit=False)},
        metrics=_top1_error,
        columns=("top1_error",),
        defaults=Defaults(_ALL, (32, 16, 8, 4, 2, 1), 3, ("digits-lit", "digits-plain"), group_table=True),
        quick=Defaults(("BN", "GN"), (32, 2), 1, ("digits-lit", "digits-plain")),
        full_defaults=Defaults(NORMS, (32, 16, 8, 4, 2), 1, group_table=True),
    ),
    "detection": Task(
        package="mmdet",
        embedded="digits/mask-rcnn_r18-mini_fpn_fusedgn-all_digits.py",
        full="scratch/mask-rcnn_r50-scratch_fpn_fusedgn-all_3x_coco.py",
        makers={"digits": _digits},
        metrics=_ap,
        columns=("box_AP", "mask_AP"),
        pretrained=True,
        defaults=Defaults(("BN", "GN"), (8, 2), 3, ("digits",), epochs=3),
        quick=Defaults(("BN", "GN"), (8, 2), 1, ("digits",), epochs=1),
        full_defaults=Defaults(NORMS, (8, 4, 2, 1), 1),
    ),
    "segmentation": Task(
        package="mmseg",
        embedded="segmentation/fcn_r18-mini_fusedgn_digits.py",
        full="segmentation/fcn_r50_fusedgn_4xb4-80k_ade20k-512x512.py",
        makers={"digits": _digit_semantics},
        metrics=_miou,
        columns=("mIoU",),
        pretrained=True,
        defaults=Defaults(("BN", "GN"), (8, 2), 3, ("digits",)),
        quick=Defaults(("BN", "GN"), (8, 2), 1, ("digits",), epochs=5),
        full_defaults=Defaults(NORMS, (4, 2, 1), 1),
    ),
}
