import pytest

pytest.importorskip("mmdet")
import numpy as np
from mmdet.registry import TRANSFORMS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmgn.engine.image_sizes import LONGEST, batch_sizes, padded

COCO = dict(type="Resize", scale=(1333, 800), keep_ratio=True)


def config(*pipeline, divisor=32, wrap=lambda dataset: dataset, **preprocessor):
    dataset = wrap(dict(type="CocoDataset", pipeline=[dict(type="LoadImageFromFile"), *pipeline]))
    return Config(
        dict(
            model=dict(data_preprocessor=dict(pad_size_divisor=divisor, **preprocessor)),
            train_dataloader=dict(dataset=dataset),
        )
    )


@pytest.mark.parametrize(
    "transform",
    [
        COCO,
        dict(type="mmdet.FixScaleResize", scale=(512, 300), keep_ratio=True),
        dict(type="Resize", scale=(160, 96), keep_ratio=False),
        dict(type="RandomChoiceResize", scales=[(333, 200), (333, 240)], keep_ratio=True),
        dict(type="RandomResize", scale=[(333, 200), (333, 264)], keep_ratio=True),
    ],
    ids=lambda t: f"{t['type']}-{t.get('scale') or t.get('scales')}",
)
def test_holds_what_the_pipeline_makes_of_images(transform):
    init_default_scope("mmdet")
    cfg = config(transform)
    sizes = batch_sizes(cfg, "train")
    resize = TRANSFORMS.build(transform)
    draw = np.random.default_rng(0)
    seen = set()
    for _ in range(300):
        short = int(draw.integers(40, 120))
        height, width = draw.permutation([short, int(short * draw.uniform(1, LONGEST))])
        seen.add(padded(cfg, resize(dict(img=np.zeros((height, width, 3), np.uint8)))["img"].shape[:2]))
    assert seen <= sizes
    # And little else.
    assert len(sizes) <= 1.5 * len(seen)


def test_cocos_sizes():
    sizes = batch_sizes(config(COCO), "train")
    wide = {(800, width) for width in range(800, 1345, 32)}
    assert sizes == wide | {(height, 1344) for height in range(672, 800, 32)}


def test_pads_as_the_model_does():
    fixed = dict(type="Resize", scale=(100, 50))
    assert batch_sizes(config(fixed), "train") == {(64, 128)}
    assert batch_sizes(config(fixed, divisor=1), "train") == {(50, 100)}
    assert padded(config(), (200, 100)) == (128, 224)


def test_looks_into_wrapped_data_sets_and_branches():
    branch = dict(type="RandomChoice", transforms=[[dict(type="Resize", scale=(64, 32))], [COCO]])
    cfg = config(branch, wrap=lambda dataset: dict(type="RepeatDataset", times=2, dataset=dataset))
    assert batch_sizes(cfg, "train") == batch_sizes(config(COCO), "train") | {(32, 64)}


@pytest.mark.parametrize(
    "cfg, why",
    [
        (config(), "no Resize of a known scale"),
        (config(dict(type="Resize", scale_factor=2.0)), "no Resize of a known scale"),
        (config(dict(type="RandomResize", scale=(64, 64), ratio_range=(0.1, 2.0))), "no Resize of a known scale"),
        (config(COCO, dict(type="mmdet.RandomCrop", crop_size=(64, 64))), "it has RandomCrop"),
        (config(COCO, batch_augments=[dict(type="BatchFixedSizePad", size=(64, 64))]), "it has batch_augments"),
        (Config(dict(model={})), "no Resize of a known scale"),
    ],
)
def test_says_so_where_sizes_cannot_be_told(cfg, why):
    with pytest.raises(ValueError, match=rf"train_dataloader.dataset \(.*{why}.*--size"):
        batch_sizes(cfg, "train")
