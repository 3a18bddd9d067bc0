import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("pycocotools")
from PIL import Image
from pycocotools.coco import COCO

from mmgn.datasets import digit_semantics
from mmgn.datasets.digit_semantics import write_semantic_maps
from mmgn.datasets.digits import DigitsPaths, make_digits

# pycocotools' RLE decoder has not followed numpy 2 yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture
def paths(tmp_path) -> DigitsPaths:
    return make_digits(tmp_path / "digits", num_train=12, num_val=5, image_size=96)


def label_map(folder: Path, split: str, name: str) -> np.ndarray:
    return np.asarray(Image.open(folder / split / f"{Path(name).stem}.png"))


def test_maps_are_the_masks_pixel_for_pixel(paths):
    folder = write_semantic_maps(paths)
    for split, file in (("train", paths.train_annotations), ("val", paths.val_annotations)):
        coco = COCO(file)
        assert len(list((folder / split).iterdir())) == len(coco.imgs)
        for image in coco.dataset["images"]:
            labels = label_map(folder, split, image["file_name"])
            covered = np.zeros_like(labels, dtype=bool)
            for annotation in coco.imgToAnns[image["id"]]:
                mask = coco.annToMask(annotation).astype(bool)
                assert (labels[mask] == annotation["category_id"]).all()
                covered |= mask
            assert labels.dtype == np.uint8 and labels.shape == (96, 96)
            assert (labels[~covered] == 0).all()


def test_maps_are_reused_and_the_digits_still_are(paths):
    folder = write_semantic_maps(paths)
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    assert write_semantic_maps(make_digits(paths.root, num_train=12, num_val=5, image_size=96)) == folder
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before
    assert sorted(p.name for p in paths.root.iterdir()) == ["annotations", "digits.json", "semantic", "train", "val"]


def test_foreign_and_incomplete_maps_are_left_alone(paths):
    folder = paths.root / "semantic"
    folder.mkdir()
    (folder / "cat.png").write_bytes(b"cat")
    with pytest.raises(FileExistsError, match="is not a label map data set"):
        write_semantic_maps(paths)
    (folder / "cat.png").unlink()
    write_semantic_maps(paths)
    (folder / "val" / "000002.png").unlink()
    with pytest.raises(FileExistsError, match=r"has 4 files val/\*\.png where digits\.json promises 5"):
        write_semantic_maps(paths)


def test_maps_of_another_version_are_not_reused(paths, monkeypatch):
    write_semantic_maps(paths)
    monkeypatch.setattr(digit_semantics, "FORMAT", digit_semantics.FORMAT + 1)
    with pytest.raises(FileExistsError, match=r"holds label map made with .*'map_format': 1.*remove it"):
        write_semantic_maps(paths)


def test_mmseg_reads_them(paths):
    pytest.importorskip("mmseg")
    from mmseg.datasets import BaseSegDataset
    from mmseg.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    folder = write_semantic_maps(paths)
    dataset = BaseSegDataset(
        data_root=str(paths.root),
        data_prefix={"img_path": "train", "seg_map_path": "semantic/train"},
        pipeline=[{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations"}, {"type": "PackSegInputs"}],
    )
    names = [image["file_name"] for image in json.loads(paths.train_annotations.read_text())["images"]]
    assert len(dataset) == len(names)
    for sample, name in zip(dataset, names, strict=True):
        assert Path(sample["data_samples"].img_path).name == name
        assert np.array_equal(sample["data_samples"].gt_sem_seg.data[0].numpy(), label_map(folder, "train", name))
