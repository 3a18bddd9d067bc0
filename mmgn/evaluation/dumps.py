"""Predictions that mmdet's ``tools/test.py --out`` pickled: read without running code, and made COCO results."""

import io
import math
import pickle
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.storage import TypedStorage

from mmgn.weights import safe_pickle

# How torch.save begins what a tensor is pickled as; what begins otherwise may be an archive of code.
_STORAGE = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_USED = ("bboxes", "scores", "labels", "masks", "mask_scores")
_WRITE_AGAIN = "write it again with tools/test.py --out"


def read_dump(path: Path) -> list[dict[str, Any]]:
    """Read the predictions of a ``DumpDetResults``.

    Returns:
        For each image ``img_id`` and ``pred_instances`` with ``bboxes``, ``scores``, ``labels``, perhaps ``masks``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it asks to run code, is damaged, or holds something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file of predictions {path}")
    try:
        with path.open("rb") as file:
            dump = safe_pickle.load(file, _TENSORS)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} is not read: {error}.") from error
    # What foreign bytes may lead an unpickler to raise.
    except Exception as error:
        raise ValueError(
            f"{path} is damaged or no pickle ({type(error).__name__}: {error}); {_WRITE_AGAIN}."
        ) from error
    if not isinstance(dump, list) or not all(isinstance(sample, dict) for sample in dump):
        raise ValueError(f"{path} holds no list of predictions as mmdet 3 dumps them; {_WRITE_AGAIN}.")
    for index, sample in enumerate(dump):
        instances = sample.get("pred_instances")
        if (
            "img_id" not in sample
            or not isinstance(instances, dict)
            or not {"bboxes", "scores", "labels"} <= {*instances}
        ):
            raise ValueError(
                f"{path}: entry {index} has no img_id or no pred_instances with bboxes, scores and labels, but "
                f"{', '.join(map(str, sample))[:120]}; only detections can be judged here."
            )
    return dump


def coco_results(
    dump: Sequence[Mapping[str, Any]], truth: Mapping[str, Any], cat_ids: Sequence[Any]
) -> dict[str, list[dict[str, Any]]]:
    """Return predictions as COCO results by IoU type, as mmdet's ``CocoMetric`` writes them.

    Args:
        dump: of :func:`read_dump`.
        truth: COCO annotations.
        cat_ids: by label.

    Returns:
        ``bbox``, and ``segm`` where there are masks.

    Raises:
        ValueError: an image, a label or a mask's size that is not the truth's.
    """
    sizes = {image["id"]: [image["height"], image["width"]] for image in truth["images"]}
    unknown = [sample["img_id"] for sample in dump if sample["img_id"] not in sizes]
    if unknown:
        raise ValueError(
            f"{len(unknown)} of the {len(dump)} images predicted are not among the {len(sizes)} of the annotations "
            f"(such as img_id {unknown[0]!r})"
        )
    results: dict[str, list[dict[str, Any]]] = {"bbox": []}
    for sample in dump:
        predicted = sample["pred_instances"]
        instances = {key: _listed(predicted[key]) for key in _USED if key in predicted}
        boxes = list(_entries(sample["img_id"], instances, cat_ids, instances["scores"]))
        results["bbox"] += boxes
        if "masks" in instances:
            scored = _entries(sample["img_id"], instances, cat_ids, instances.get("mask_scores", instances["scores"]))
            masks = (_mask(mask, sizes[sample["img_id"]], sample["img_id"]) for mask in instances["masks"])
            results.setdefault("segm", []).extend(
                entry | {"segmentation": mask} for entry, mask in zip(scored, masks, strict=True)
            )
    return results


def _entries(
    img_id: Any, instances: Mapping[str, Any], cat_ids: Sequence[Any], scores: Sequence[float]
) -> Iterator[dict[str, Any]]:
    for label, (left, top, right, bottom), score in zip(instances["labels"], instances["bboxes"], scores, strict=True):
        if not 0 <= label < len(cat_ids):
            raise ValueError(f"label {label} in image {img_id!r} is of a model with more than {len(cat_ids)} classes")
        box = [left, top, right - left, bottom - top]
        yield {"image_id": img_id, "category_id": cat_ids[label], "bbox": box, "score": score}


def _mask(rle: Mapping[str, Any], size: list[int], img_id: Any) -> dict[str, Any]:
    if list(rle["size"]) != size:
        raise ValueError(f"masks of image {img_id!r} are of height and width {list(rle['size'])}, and the image {size}")
    counts = rle["counts"]
    return {"size": size, "counts": counts.decode("latin-1") if isinstance(counts, bytes) else counts}


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else value.tolist()


def _storage(raw: Any) -> TypedStorage:
    if not isinstance(raw, bytes) or not raw.startswith(_STORAGE):
        raise pickle.UnpicklingError("a tensor's contents are not what torch writes")
    try:
        storage = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    except Exception as error:
        raise pickle.UnpicklingError(f"a tensor's contents are refused ({type(error).__name__})") from error
    if not isinstance(storage, TypedStorage):
        raise pickle.UnpicklingError(f"a tensor's contents are a {type(storage).__name__}")
    return storage


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    if not isinstance(storage, TypedStorage):
        raise pickle.UnpicklingError("a tensor has no contents")
    numbers = [offset, *size, *stride]
    if len(size) != len(stride) or len(size) > 32 or not all(type(n) is int and 0 <= n < 2**63 for n in numbers):
        raise pickle.UnpicklingError("a tensor's shape is not what torch writes")
    # torch would make room for what lies beyond; and strides of 0 would make any size of a few bytes.
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if math.prod(size) and max(last + 1, math.prod(size)) > storage._size():
        raise pickle.UnpicklingError(f"a tensor of shape {list(size)} is larger than its contents")
    tensor: Tensor = torch._utils._rebuild_tensor(storage, offset, size, stride)
    return tensor


_TENSORS = {"torch._utils._rebuild_tensor_v2": _tensor, "torch.storage._load_from_bytes": _storage}
