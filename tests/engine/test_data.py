import pytest
from mmengine.config import Config

from mmgn.engine.config import load_config
from mmgn.engine.data import check_data, datasets, find_ann_file, find_classes, find_img_dir, metrics, set_data_root

COCO = "mask_rcnn/mask-rcnn_r50_fpn_fusedgn-all_2x_coco.py"
MMDET = "mmdet::gn/mask-rcnn_r50_fpn_gn-all_2x_coco.py"
DIGITS = "digits/mask-rcnn_r18-mini_fpn_fusedgn-all_digits.py"


def data_set(**kwargs):
    return dict(type="CocoDataset", ann_file="a.json", data_prefix=dict(img="images/"), **kwargs)


def paths(cfg):
    found = [(find_ann_file(d), find_img_dir(d)) for split in ("train", "val", "test") for _, d in datasets(cfg, split)]
    return [str(path) for pair in found for path in pair] + [
        str(find_ann_file(metric)) for split in ("val", "test") for _, metric in metrics(cfg, split)
    ]


@pytest.mark.parametrize(("config", "old"), [(COCO, "data/coco"), (DIGITS, "data/digits"), (MMDET, "data/coco")])
@pytest.mark.parametrize("root", ["/mnt/sets/coco", "/mnt/sets/coco/", "data/coco/again"])
def test_all_data_move_with_the_root(config, old, root, monkeypatch):
    monkeypatch.delenv("MMDET_DATASETS", raising=False)
    before = paths(load_config(config))
    assert len(before) == 8
    assert all(path.startswith(f"{old}/") for path in before)
    moved = [path.replace(old, root.rstrip("/"), 1) for path in before]
    assert paths(load_config(config, data_root=root)) == moved
    monkeypatch.setenv("MMDET_DATASETS", root)
    assert paths(load_config(config)) == moved


def test_the_more_particular_setting_wins(monkeypatch):
    monkeypatch.setenv("MMDET_DATASETS", "/environment")
    options = {"val_evaluator.ann_file": "/option/a.json"}
    cfg = load_config(DIGITS, data_root="/flag", options=options)
    assert cfg.train_dataloader.dataset.data_root == "/flag/"
    assert cfg.val_evaluator.ann_file == "/option/a.json"
    assert cfg.test_evaluator.ann_file == "/flag/annotations/instances_val.json"


def test_data_sets_in_wrappers_are_found_and_move():
    inner = [data_set(data_root="data/x/"), dict(type="RepeatDataset", times=2, dataset=data_set(data_root="data/x"))]
    cfg = Config(
        dict(
            train_dataloader=dict(dataset=dict(type="ConcatDataset", datasets=inner)),
            val_evaluator=[dict(type="CocoMetric", ann_file="data/x/a.json"), dict(type="CocoMetric")],
        )
    )
    set_data_root(cfg, "/y")
    assert [where for where, _ in datasets(cfg, "train")] == [
        "train_dataloader.dataset.datasets.0",
        "train_dataloader.dataset.datasets.1.dataset",
    ]
    assert [str(find_ann_file(d)) for _, d in datasets(cfg, "train")] == ["/y/a.json", "/y/a.json"]
    assert cfg.val_evaluator[0].ann_file == "/y/a.json"


@pytest.mark.parametrize("roots", [["data/x", "data/y"], ["", ""], [None]])
def test_no_single_root_is_told(roots):
    inner = [data_set(data_root=root) if root is not None else data_set() for root in roots]
    cfg = Config(dict(train_dataloader=dict(dataset=dict(type="ConcatDataset", datasets=inner))))
    with pytest.raises(ValueError, match=r"data root of .* cannot be replaced by '/z'"):
        set_data_root(cfg, "/z")


@pytest.mark.parametrize(
    ("dataset", "folder", "setting"),
    [
        (dict(type="ImageNet", split="val"), "val", "split"),
        (dict(type="ImageNet", split="val", data_prefix="images"), "images", "data_prefix"),
        (dict(type="CustomDataset"), "", "data_prefix"),
        (dict(type="CustomDataset", data_prefix="train"), "train", "data_prefix"),
        (dict(type="ADE20KDataset", data_prefix=dict(img_path="i", seg_map_path="s")), "i", "data_prefix.img_path"),
    ],
)
def test_image_folders_of_mmpretrain_and_mmsegmentation(dataset, folder, setting, tmp_path):
    cfg = Config(dict(train_dataloader=dict(dataset=dict(dataset, data_root=str(tmp_path / "root")))))
    message = rf"image folder '{tmp_path / 'root' / folder}' \(train_dataloader\.dataset\.{setting}\) "
    with pytest.raises(FileNotFoundError, match=f"{message}does not exist"):
        check_data(cfg, "train")
    for name in (folder, "s"):
        (tmp_path / "root" / name).mkdir(parents=True, exist_ok=True)
    with pytest.raises(FileNotFoundError, match=f"{message}has no images"):
        check_data(cfg, "train")
    for name in (folder, "s"):
        (tmp_path / "root" / name / "1.png").touch()
    check_data(cfg, "train")


def test_a_config_without_data_is_left_alone():
    cfg = Config(dict(model=dict(type="X")))
    set_data_root(cfg, "/z")
    assert cfg.to_dict() == dict(model=dict(type="X"))


def test_classes_are_the_data_sets_own(tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("cat\ndog\n")
    cfg = Config(dict())
    assert find_classes(data_set(), cfg)[:2] == ("person", "bicycle")
    assert find_classes(data_set(metainfo=dict(classes=("cat",))), cfg) == ("cat",)
    assert find_classes(data_set(metainfo=dict(classes=str(names))), cfg) == ("cat", "dog")
    assert find_classes(dict(type="VOCDataset"), cfg) is None
    with pytest.raises(ValueError, match="unknown type of data set 'NoDataset'"):
        find_classes(dict(type="NoDataset"), cfg)


def test_data_elsewhere_are_nobodys_path():
    remote = data_set(data_root="s3://bucket/")
    assert find_ann_file(remote) is None
    assert find_img_dir(remote) is None
    assert find_ann_file(data_set(backend_args=dict(backend="petrel"))) is None
