"""What the scale benchmarks measure on: synthetic files, and that the engines side by side do the same work."""

import json
import sys

import numpy as np
import pytest
from mmdet.registry import DATASETS

import mmgn  # noqa: F401  # before mmdet


@pytest.fixture(scope="module")
def synthetic(benchmark_module):
    return benchmark_module("synthetic_coco")


def test_files_have_the_numbers_asked_for(synthetic, tmp_path):
    synthetic.write(tmp_path / "a.json", 12_345, 20_001, seed=1)
    truth = json.loads((tmp_path / "a.json").read_text())
    assert len(truth["images"]) == len({image["id"] for image in truth["images"]}) == 12_345
    annotations = truth["annotations"]
    assert len(annotations) == len({a["id"] for a in annotations}) == 20_001
    boxes = np.array([a["bbox"] for a in annotations])
    assert boxes.min() >= 0
    assert (boxes[:, :2] + boxes[:, 2:] <= np.array([synthetic.WIDTH, synthetic.HEIGHT]) + 0.01).all()
    counts = np.bincount([a["image_id"] for a in annotations], minlength=12_345)
    assert counts.min() == 0
    assert counts.max() > 3 * counts.mean()
    synthetic.write(tmp_path / "b.json", 12_345, 20_001, seed=1)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_mmdet_keeps_every_object(synthetic, tmp_path):
    synthetic.write(tmp_path / "a.json", 50, 400, polygons=True)
    kept = DATASETS.build(
        dict(
            type="CocoDataset",
            ann_file=str(tmp_path / "a.json"),
            data_prefix=dict(img=""),
            pipeline=[],
            _scope_="mmdet",
        )
    )
    instances = [instance for i in range(len(kept)) for instance in kept[i]["instances"]]
    assert len(instances) == 400
    for instance in instances:
        (outline,) = instance["mask"]
        points = np.array(outline).reshape(-1, 2)
        assert synthetic.CORNERS[0] <= len(points) < synthetic.CORNERS[1]
        x1, y1, x2, y2 = instance["bbox"]
        assert (points >= [x1 - 0.01, y1 - 0.01]).all() and (points <= [x2 + 0.01, y2 + 0.01]).all()


def test_engines_judge_the_same(synthetic, benchmark_module, tmp_path):
    evaluation = benchmark_module("scale_evaluation")
    synthetic.write(tmp_path / "a.json", 40, 291)
    truth = json.loads((tmp_path / "a.json").read_text())
    results = evaluation.detections(truth)
    assert len(results) == 40 * evaluation.DETECTIONS
    theirs, ours = (judge(truth, results, "bbox") for judge in benchmark_module("coco_engines").ENGINES.values())
    assert ours == pytest.approx(theirs, abs=1e-12)
    assert ours[0] > 0.02


def test_collected_results_are_those_of_a_hundred_masks(benchmark_module):
    import pycocotools.mask

    _, kept = benchmark_module("scale_evaluation").kept_of_image(3)
    areas = pycocotools.mask.area(kept["masks"])
    boxes = kept["bboxes"]
    filled = areas / ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
    assert len(areas) == 100
    assert 0.4 < np.median(filled) < 0.75


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_annotations_are_measured(synthetic, benchmark_module, tmp_path):
    annotations = benchmark_module("scale_annotations")
    synthetic.write(tmp_path / "a.json", 1000, 7000)
    kind = "SharedCocoDataset, first start"
    found = annotations.measure(kind, tmp_path / "a.json", tmp_path / "cache", 1)
    assert found["cpu_seconds"] > 0.03
    assert found["items_mib"] == pytest.approx(
        sum(f.stat().st_size for f in tmp_path.glob("cache/*.items")) / 2**20, 0.1
    )
    assert found["peak_mib"] > found["items_mib"]


def test_jpeg_files_have_cocos_mean_size(benchmark_module, synthetic, tmp_path):
    loader = benchmark_module("scale_loader")
    size = loader.write_images(tmp_path / "images", 4)
    assert size == pytest.approx(loader.JPEG_BYTES, rel=0.15)
    synthetic.write(tmp_path / "coco.json", 4, 30, polygons=True)
    for bitmaps in (True, False):
        dataset = loader.build(tmp_path, bitmaps)
        data = dataset[0]
        assert sorted(data["inputs"].shape) == [3, 800, 1067]
        assert type(data["data_samples"].gt_instances.masks).__name__ == ("BitmapMasks" if bitmaps else "PolygonMasks")
        assert list(loader.step_seconds(dataset, 1))[1:] == [
            "LoadImageFromFile", "LoadAnnotations", "Resize", "RandomFlip", "PackDetInputs",
        ]  # fmt: skip
