import json
import math

import pytest

from mmgn.report.workdir import read_work_dir


def test_later_run_takes_over_from_its_first_step(tmp_path, lines):
    val = {"coco/bbox_mAP": 0.1, "step": 1}
    old = [lines.train(10, 9.0), lines.train(20, 8.0), val, lines.train(30, 7.0), {**val, "step": 2}]
    lines.write(tmp_path, "20250101_000000", old)
    lines.write(tmp_path, "20250102_000000", [lines.train(30, 1.0), {**val, "coco/bbox_mAP": 0.5, "step": 2}])
    work = read_work_dir(tmp_path)
    assert [(line["step"], line["loss"]) for line in work.train] == [(10, 9.0), (20, 8.0), (30, 1.0)]
    assert [(line["step"], line["after"], line["coco/bbox_mAP"]) for line in work.val] == [(1, 20, 0.1), (2, 30, 0.5)]


def test_training_from_scratch_hides_the_run_before(tmp_path, lines):
    lines.write(tmp_path, "20250101_000000", [lines.train(10, 9.0), lines.train(20, 8.0)])
    lines.write(tmp_path, "20250102_000000", [lines.train(10, 1.0)])
    assert [line["loss"] for line in read_work_dir(tmp_path).train] == [1.0]


def test_validation_without_training_is_no_part_of_the_curve(tmp_path, lines):
    lines.write(tmp_path, "20250101_000000", [lines.train(10, 9.0)])
    lines.write(tmp_path, "20250102_000000", [{"coco/bbox_mAP": 0.1, "step": 0}])
    work = read_work_dir(tmp_path)
    assert (len(work.train), work.val) == (1, [])
    assert work.config_text.startswith("# 20250101")


def test_names_may_carry_the_stage(tmp_path, lines):
    train = {"train/loss": 2.0, "iter": 5, "step": 5}
    lines.write(tmp_path, "20250101_000000", [train, {"val/coco/bbox_mAP": 0.5, "step": 1}])
    work = read_work_dir(tmp_path)
    assert work.train[0]["loss"] == 2.0
    assert work.val[0]["coco/bbox_mAP"] == 0.5


def test_nonfinite_values_survive(tmp_path, lines):
    path = lines.write(tmp_path, "20250101_000000", [lines.train(1, math.nan), lines.train(2, -math.inf)])
    assert "NaN" in path.read_text()
    losses = [line["loss"] for line in read_work_dir(tmp_path).train]
    assert math.isnan(losses[0])
    assert losses[1] == -math.inf


@pytest.mark.parametrize("tail", ['{"lr": 0.02, "lo', "\0\0\0"])
def test_torn_last_line_is_skipped_and_told(tmp_path, lines, tail):
    path = lines.write(tmp_path, "20250101_000000", [lines.train(1, 1.0)], tail)
    work = read_work_dir(tmp_path)
    assert len(work.train) == 1
    assert work.notes == [f"The last line of {path} is torn, as a killed run leaves it; it was skipped."]


def test_damage_elsewhere_is_an_error(tmp_path, lines):
    tail = '{"lr": 0.0\n' + json.dumps(lines.train(2, 1.0)) + "\n"
    path = lines.write(tmp_path, "20250101_000000", [lines.train(1, 1.0)], tail)
    with pytest.raises(ValueError, match=r"scalars\.json:2 is not JSON.*remove that line"):
        read_work_dir(tmp_path)
    path.write_text('{"loss": 1}\n')
    with pytest.raises(ValueError, match=r"scalars\.json:1 has no integer 'step'"):
        read_work_dir(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"train": 3}'])
def test_damaged_record(tmp_path, lines, text):
    lines.write(tmp_path, "20250101_000000", [lines.train(1, 1.0)])
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ValueError, match=r"run.json is not .*remove it to report without it"):
        read_work_dir(tmp_path)


@pytest.mark.parametrize(
    "section, key, value, told",
    [
        ("train", "seconds", "x", "train.seconds must be a finite number, got 'x'"),
        ("train", "seconds", float("nan"), "train.seconds must be a finite number, got nan"),
        ("train", "max_iters", 1.5, "train.max_iters must be a whole number, got 1.5"),
        ("train", "norms", {"rows": [[1]], "warnings": []}, "train.norms must be an object of rows and warnings"),
        ("evaluation", "ann_file", ["a"], r"evaluation.ann_file must be a text, got \['a'\]"),
        ("evaluation", "config", 7, "evaluation.config must be a text, got 7"),
        ("evaluation", "classes", 0.5, "evaluation.classes must be a list of names, got 0.5"),
        ("evaluation", "metrics", [], r"evaluation.metrics must be an object, got \[\]"),
    ],
)
def test_a_records_field_of_another_type_is_named(tmp_path, lines, section, key, value, told):
    lines.write(tmp_path, "20250101_000000", [lines.train(1, 1.0)])
    (tmp_path / "run.json").write_text(json.dumps({section: {key: value}}))
    with pytest.raises(ValueError, match=rf"run\.json: {told}.*remove it to report without it"):
        read_work_dir(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["test_dataloader = 3", "test_dataloader = dict(dataset=dict(data_prefix=dict(img=2), metainfo=dict(classes=1)))"],
)
def test_settings_of_another_type_are_no_settings(tmp_path, lines, text):
    path = lines.write(tmp_path, "20250101_000000", [lines.train(1, 1.0)])
    path.with_name("config.py").write_text(text)
    assert read_work_dir(tmp_path).evaluation == {"classes": None}


def test_missing_directory(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no work directory .*nowhere"):
        read_work_dir(tmp_path / "nowhere")


CONFIG = """
data_root = 'data/coco/'
model = dict(backbone=dict(depth=50, norm_cfg=dict(requires_grad=True, type='BN'), type='ResNet'), type='RetinaNet')
optimizer = make_optimizer(lr=open('/etc/passwd'))
test_dataloader = dict(
    batch_size=1,
    dataset=dict(
        dataset=dict(ann_file='val.json', data_prefix=dict(img='val/'), data_root='data/coco/',
                     metainfo=dict(classes=('cat', 'dog'))),
        type='RepeatDataset'))
test_evaluator = [
    dict(type='DumpDetResults'),
    dict(ann_file='data/coco/val.json', outfile_prefix='work_dirs/retina/results', type='CocoMetric'),
]
train_cfg = dict(max_epochs=12, type='EpochBasedTrainLoop')
"""


def test_a_run_without_a_record_is_told_by_its_configuration(tmp_path, lines, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "work_dirs" / "retina"
    lines.write(path, "20250101_000000", [lines.train(1, 1.0)])
    (path / "20250101_000000" / "vis_data" / "config.py").write_text(CONFIG)
    (path / "results.bbox.json").write_text("[]")
    work = read_work_dir(path)
    assert work.evaluation == {
        "ann_file": str(tmp_path / "data/coco/val.json"),
        "img_dir": str(tmp_path / "data/coco/val"),
        "results_prefix": str(path / "results"),
        "classes": ("cat", "dog"),
    }
    assert work.locate(work.evaluation["results_prefix"]) == path / "results"
    # It was read, not run.
    assert "optimizer" not in work.config
    # From elsewhere, results that lie in the work directory are found all the same.
    monkeypatch.chdir("/")
    work = read_work_dir(path)
    assert work.locate(work.evaluation["results_prefix"]) == path / "results"


def test_a_record_comes_before_the_configuration(work_dir):
    assert read_work_dir(work_dir).evaluation["results_prefix"] == "results"
