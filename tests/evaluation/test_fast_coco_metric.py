import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("mmdet")

from mmdet.registry import METRICS

from mmgn.evaluation import FIGURES
from mmgn.evaluation.fast_coco_metric import FastCocoMetric

CocoMetric = METRICS.get("CocoMetric")
EPS = 1e-9


def samples(truth, results, cat_ids, *, masks=True, instances=False):
    """Return what a model and a data set hand to a metric, in single precision as models do."""
    out = []
    for image in truth["images"]:
        own = [entry for entry in results if entry["image_id"] == image["id"]]
        boxes = np.array([entry["bbox"] for entry in own], dtype=np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        predicted = {
            "bboxes": torch.from_numpy(boxes),
            "scores": torch.tensor([entry["score"] for entry in own], dtype=torch.float32),
            "labels": torch.tensor([cat_ids.index(entry["category_id"]) for entry in own], dtype=torch.long),
        }
        if masks:
            predicted["masks"] = [dict(entry["segmentation"]) for entry in own]
        sample = {"img_id": image["id"], "ori_shape": (image["height"], image["width"]), "pred_instances": predicted}
        if instances:
            entries = [entry for entry in truth["annotations"] if entry["image_id"] == image["id"]]
            sample["instances"] = [
                {
                    "bbox": [*e["bbox"][:2], e["bbox"][0] + e["bbox"][2], e["bbox"][1] + e["bbox"][3]],
                    "bbox_label": cat_ids.index(e["category_id"]),
                    "ignore_flag": e["iscrowd"],
                    "mask": e["segmentation"],
                }
                for e in entries
            ]
        out.append(sample)
    return out


def figures(kind, truth, results, tmp_path, *, ann_file=True, masks=True, **options):
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(truth))
    metric = kind(ann_file=str(path) if ann_file else None, **{"metric": ["bbox", "segm"], **options})
    metric.dataset_meta = {"classes": [category["name"] for category in truth["categories"]]}
    cat_ids = [category["id"] for category in truth["categories"]]
    own = samples(truth, results, cat_ids, masks=masks, instances=not ann_file)
    metric.process({}, own)
    return metric.evaluate(len(own))


def single(results):
    """Round as a model's float32 does, for a reference in double precision."""
    return [
        entry | {"bbox": np.float32(entry["bbox"]).tolist(), "score": float(np.float32(entry["score"]))}
        for entry in results
    ]


def assert_same(ours, mmdets):
    assert mmdets, "mmdet gave nothing to compare with"
    assert {key: ours[key] for key in mmdets} == pytest.approx(mmdets, abs=0, rel=0, nan_ok=True)


def assert_official(coco, ours, truth, results, **cat_ids):
    for kind in ("bbox", "segm"):
        official = [ours[f"coco/official_{kind}_{name.replace('mAP', 'AP')}"] for name in FIGURES]
        expected = coco.pycocotools(truth, single(results), kind, **cat_ids).stats
        assert official == pytest.approx(expected, abs=EPS, rel=0)


def sorted_ids(truth):
    """With which mmdet 3.3.0 gets the classes right."""
    return truth | {"categories": sorted(truth["categories"], key=lambda category: category["id"])}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"classwise": True},
        {"metric": ["proposal", "bbox"]},
        {"proposal_nums": (2, 5, 100), "metric_items": ["mAP", "mAP_75", "AR@100", "AR_s@1000"]},
        {"proposal_nums": (1, 3, 7)},
        {"ann_file": False},
        {"masks": False, "metric": "bbox"},
        {"iou_thrs": np.array([0.3, 0.5, 0.62])},
        {"use_mp_eval": True},
    ],
    ids=str,
)
def test_mmdets_keys_and_values(coco, tmp_path, seed, options):
    truth, results = coco.random_set(seed, images=8)
    truth = sorted_ids(truth)
    ours = figures(FastCocoMetric, truth, results, tmp_path, **options)
    if "use_mp_eval" in options:
        options = {}
    mmdets = figures(CocoMetric, truth, results, tmp_path, **options)
    assert_same(ours, mmdets)
    assert all("official" in key for key in ours.keys() - mmdets.keys())


def test_digits(coco, tmp_path):
    pytest.importorskip("sklearn")
    from pycocotools import mask as mask_api

    from mmgn.datasets.digits import make_digits

    truth = json.loads(make_digits(tmp_path, num_train=1, num_val=24).val_annotations.read_text())
    rng = np.random.default_rng(0)
    results = []
    for entry in truth["annotations"] * 2:
        # The digit's own mask, moved by up to 5 pixels; one in ten is called the next digit.
        own = mask_api.decode(entry["segmentation"])
        moved = mask_api.encode(np.asfortranarray(np.roll(own, rng.integers(-5, 6, size=2), axis=(0, 1))))
        results.append(
            {
                "image_id": entry["image_id"],
                "category_id": entry["category_id"] % 10 + 1 if rng.random() < 0.1 else entry["category_id"],
                "bbox": mask_api.toBbox(moved).tolist(),
                "segmentation": moved | {"counts": moved["counts"].decode()},
                "score": rng.random(),
            }
        )
    ours = figures(FastCocoMetric, truth, results, tmp_path)
    assert_official(coco, ours, truth, results, cat_ids=range(1, 11))
    assert_same(ours, figures(CocoMetric, truth, results, tmp_path))
    assert 0.1 < ours["coco/official_segm_AP"] < 0.9


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    images=st.integers(1, 6),
    objects=st.integers(0, 8),
    detections=st.integers(0, 30),
    classes=st.integers(1, 4),
    ties=st.booleans(),
)
def test_official_figures_are_pycocotools_unrounded(
    coco, tmp_path_factory, seed, images, objects, detections, classes, ties
):
    truth, results = coco.random_set(
        seed, images=images, objects=objects, detections=detections, cat_ids=coco.cat_ids[:classes], ties=ties
    )
    if not results:
        return
    tmp_path = tmp_path_factory.mktemp("adversarial")
    ours = figures(FastCocoMetric, truth, results, tmp_path)
    assert len([key for key in ours if key.startswith("coco/official_")]) == 24
    assert_official(coco, ours, truth, results)
    assert_same(ours, figures(CocoMetric, truth, results, tmp_path))


def test_more_detections_than_count(coco, tmp_path):
    truth, results = coco.random_set(5, images=2, cat_ids=[7], detections=2000, objects=20)
    assert max(Counter(entry["image_id"] for entry in results).values()) > 300
    ours = figures(FastCocoMetric, truth, results, tmp_path)
    assert ours["coco/official_bbox_AR_1"] < ours["coco/official_bbox_AR_10"] < ours["coco/official_bbox_AR_100"]
    assert_official(coco, ours, truth, results)
    assert_same(ours, figures(CocoMetric, truth, results, tmp_path))


def test_classes_keep_their_names_and_their_box_ap(coco, tmp_path):
    truth, results = coco.random_set(0, cat_ids=[7, 3])
    ours = figures(FastCocoMetric, truth, results, tmp_path, classwise=True)
    for kind in ("bbox", "segm"):
        theirs = coco.pycocotools(truth, single(results), kind).eval
        precision, recall = (theirs[name][..., 0, 2] for name in ("precision", "recall"))
        for k, cat_id in enumerate([3, 7]):
            assert ours[f"coco/official_{kind}_class {cat_id}_AR_100"] == pytest.approx(recall[:, k].mean(), abs=EPS)
            assert ours[f"coco/official_{kind}_class {cat_id}_AP"] == pytest.approx(precision[..., k].mean(), abs=EPS)
    for cat_id in (3, 7):
        unrounded = ours[f"coco/official_segm_class {cat_id}_AP"]
        assert ours[f"coco/class {cat_id}_precision"] == pytest.approx(unrounded, abs=6e-4)
    assert len({round(value, 3) for key, value in ours.items() if key.endswith(("3_AP", "7_AP"))}) == 4


def test_no_detection_is_zero(coco, tmp_path):
    truth, _ = coco.random_set(0)
    ours = figures(FastCocoMetric, truth, [], tmp_path)
    assert {ours[f"coco/{name}"] for name in ("bbox_mAP", "segm_mAP", "official_bbox_AP", "official_segm_AP")} == {0.0}


def test_no_object_is_minus_one(coco, tmp_path):
    truth, results = coco.random_set(0)
    truth["annotations"] = []
    ours = figures(FastCocoMetric, truth, results, tmp_path)
    assert set(ours.values()) == {-1.0}
    assert_same(ours, figures(CocoMetric, truth, results, tmp_path))


@pytest.mark.filterwarnings("ignore:Found annotation id 0")
def test_annotation_of_id_0_is_treated_as_pycocotools_does(coco, tmp_path):
    truth, results = coco.random_set(0)
    truth["annotations"][0]["id"] = 0
    ours = figures(FastCocoMetric, truth, results, tmp_path)
    assert_official(coco, ours, truth, results)


@pytest.mark.parametrize("iou_thrs", [[0.5, 0.75], 0.5])
def test_iou_thresholds_from_a_config(coco, tmp_path, iou_thrs):
    truth, results = coco.random_set(1)
    ours = figures(FastCocoMetric, truth, results, tmp_path, iou_thrs=iou_thrs)
    default = figures(FastCocoMetric, truth, results, tmp_path)
    assert ours["coco/bbox_mAP_50"] == default["coco/bbox_mAP_50"] > 0
    assert ours["coco/bbox_mAP_75"] == (default["coco/bbox_mAP_75"] if iou_thrs != 0.5 else -1)
    assert {k: v for k, v in ours.items() if "official" in k} == {k: v for k, v in default.items() if "official" in k}


def test_results_files_are_mmdets(coco, tmp_path):
    truth, results = coco.random_set(2)
    written = {}
    for kind in (CocoMetric, FastCocoMetric):
        prefix = tmp_path / kind.__name__
        assert not figures(kind, truth, results, tmp_path, format_only=True, outfile_prefix=str(prefix))
        written[kind] = [json.loads((tmp_path / f"{kind.__name__}.{of}.json").read_text()) for of in ("bbox", "segm")]
    assert written[FastCocoMetric] == written[CocoMetric]
    figures(FastCocoMetric, truth, results, tmp_path, outfile_prefix=str(tmp_path / "beside"))
    assert json.loads((tmp_path / "beside.segm.json").read_text()) == written[CocoMetric][1]


def test_what_cannot_be_judged_is_told(coco, tmp_path):
    truth, results = coco.random_set(3)
    with pytest.raises(ValueError, match="use metric='proposal'"):
        FastCocoMetric(metric="proposal_fast")
    with pytest.raises(ValueError, match=r"proposal_nums must be three numbers.*got \[100\]"):
        FastCocoMetric(proposal_nums=(100,))
    with pytest.raises(KeyError, match="segm is not in results"):
        figures(FastCocoMetric, truth, results, tmp_path, masks=False)
    with pytest.raises(KeyError, match='metric item "mAP_90" is not supported'):
        figures(FastCocoMetric, truth, results, tmp_path, metric_items=["mAP_90"])
    metric = FastCocoMetric(ann_file=str(tmp_path / "truth.json"))
    metric.dataset_meta = {"classes": [category["name"] for category in truth["categories"]]}
    sample = next(own for own in samples(truth, results, coco.cat_ids) if len(own["pred_instances"]["labels"]))
    metric.process({}, [sample | {"img_id": 4711}])
    with pytest.raises(ValueError, match=r"of images that the annotations do not have .*4711"):
        metric.evaluate(1)
    metric = FastCocoMetric(ann_file=str(tmp_path / "truth.json"))
    metric.dataset_meta = {"classes": ["class 7", "zebra"]}
    metric.process({}, [sample])
    with pytest.raises(ValueError, match=r"label \d, but the annotations have only 1 of the data set's 2 classes"):
        metric.evaluate(1)


def test_a_config_finds_it_and_without_faster_coco_eval_the_way_out_is_told():
    code = """
import sys
sys.modules["faster_coco_eval"] = None
import mmgn
assert "pycocotools" not in sys.modules and "mmdet.evaluation" not in sys.modules, "import mmgn is to be light"
from mmdet.registry import METRICS
METRICS.build(dict(type="CocoMetric"))
assert METRICS.get("FastCocoMetric").__base__ is METRICS.get("CocoMetric")
try:
    METRICS.build(dict(type="FastCocoMetric"))
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'mmgn[report]'" in done.stdout, done.stderr
