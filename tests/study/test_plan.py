"""A study planned on a few images: what each cell is to be, and what it is held against later."""

import re
import shutil

import pytest

pytest.importorskip("mmpretrain")

import torch
from mmengine.config import Config

from mmgn.datasets.digit_images import make_digit_images
from mmgn.datasets.digits import make_digits
from mmgn.engine import launch
from mmgn.engine.config import find_config, load_config
from mmgn.models.norms import norm_layers
from mmgn.study.cell import write_config
from mmgn.study.plan import plan
from mmgn.study.run import cell_table, verdict
from mmgn.study.study import SETTINGS, Options, Outcome

CONFIG = "classification/resnet-mini_fusedgn_digits.py"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return make_digit_images(tmp_path_factory.mktemp("data") / "few", lit=False, num_train=32, num_val=10)


@pytest.fixture
def planned(images, tmp_path):
    """Plan a study of an epoch of 32 images; its configs are written, as where its cells are trained."""

    def make(**changes):
        given = dict(norms=("BN*", "GN"), batch_sizes=(16, 4), seeds=1, epochs=1, groups=(), channels_per_group=())
        where = dict(task="classification", out=tmp_path, data=str(images), config=CONFIG)
        return written(plan(Options(**(where | given | changes))))

    return make


def written(study):
    for cell in study.cells:
        write_config(study.config(cell), study.base, study.configs[cell])
    return study


def by_id(study):
    return {cell.id: cell for cell in study.cells}


def test_cells_differ_in_what_is_varied_alone(planned):
    study = planned()
    cells = by_id(study)
    assert list(cells) == [
        "few_bn-frozen_b16_seed0",
        "few_bn-frozen_b4_seed0",
        "few_gn-8g_b16_seed0",
        "few_gn-8g_b4_seed0",
        "few_bn_b16_seed0",
    ]
    facts = study.facts[cells["few_gn-8g_b4_seed0"]]
    base = load_config(CONFIG)
    rate = base.optim_wrapper.optimizer.lr * 4 / base.auto_scale_lr.base_batch_size
    assert (facts["iterations"], facts["images"], facts["total_batch"], facts["start"]) == (8, 32, 4, "scratch")
    assert float(facts["lr"]) == pytest.approx(rate)
    one, other = (set(study.settings[cells[f"few_gn-8g_b{size}_seed0"]].splitlines()) for size in (16, 4))
    names = {line.split(" = ")[0] for line in one ^ other}
    assert names == {
        "cfg.train_dataloader.batch_size",
        "cfg.optim_wrapper.optimizer.lr",
        "cfg.param_scheduler.0.end",
    }
    # The config of a cell is all that a training needs.
    written = Config.fromfile(study.config(cells["few_gn-8g_b4_seed0"]))
    assert written.train_dataloader.batch_size == 4
    assert written.randomness.seed == 0


def test_bn_frozen_waits_for_bn_of_the_largest_batch_and_goes_after_it(planned):
    study = planned()
    cells = by_id(study)
    model = cells["few_bn_b16_seed0"]
    for size in (16, 4):
        frozen = cells[f"few_bn-frozen_b{size}_seed0"]
        assert study.waits_for(frozen) == model
        assert study.facts[frozen]["start"] == model.id
        assert Config.fromfile(study.config(frozen)).load_from == str(study.folder(model) / "epoch_1.pth")
    assert study.waits_for(cells["few_gn-8g_b4_seed0"]) is None
    assert study.in_order(study.cells)[0] == model
    study.outcomes[model] = Outcome("failed", "no memory")
    assert study.blocked(frozen) == Outcome("failed", "its BN model, few_bn_b16_seed0, has failed")
    assert any(line.startswith("added: 1 cell of that BN") for line in study.head)
    assert model.id in cell_table(study).splitlines()[1]
    assert "few_bn_b16_seed0: no memory" in verdict(study)


def test_a_budget_in_iterations_ends_in_weights_of_another_name(planned, tmp_path):
    config = tmp_path / "iterations.py"
    config.write_text(
        f"_base_ = {str(find_config(CONFIG).resolve())!r}\n"
        "train_cfg = dict(type='IterBasedTrainLoop', max_iters=3, val_interval=3, _delete_=True)\n"
        "train_dataloader = dict(sampler=dict(type='InfiniteSampler'))\n"
        "param_scheduler = []\n"
        "auto_scale_lr = dict(base_batch_size=32)\n"
    )
    study = planned(config=str(config), epochs=None)
    cells = by_id(study)
    frozen, model = cells["few_bn-frozen_b4_seed0"], cells["few_bn_b16_seed0"]
    assert (study.facts[model]["iterations"], study.facts[frozen]["iterations"]) == (6, 24)
    assert {study.facts[cell]["images"] for cell in cells.values()} == {96}
    written = Config.fromfile(study.config(frozen))
    assert written.load_from == str(study.folder(model) / "iter_6.pth")
    assert written.default_hooks.checkpoint.by_epoch is False


def test_bn_frozen_trains_all_but_its_norms(planned):
    study = planned()
    cells = by_id(study)
    model, frozen = cells["few_bn_b16_seed0"], cells["few_bn-frozen_b4_seed0"]
    study.clear(model)
    # In a process of its own where a study does it.
    cfg = load_config(str(study.config(model)), work_dir=str(study.folder(model)))
    launch.build_runner(cfg).train()
    before = torch.load(study.folder(model) / "epoch_1.pth", weights_only=True)["state_dict"]
    assert any(value.ne(1).any() for key, value in before.items() if key.endswith("running_var"))
    runner = launch.build_runner(load_config(str(study.config(frozen)), work_dir=str(study.folder(frozen))))
    runner.train()
    assert runner.iter == 8
    after = runner.model.state_dict()
    norms = {norm.name for norm in norm_layers(runner.model)}
    held = {key for key in after if key.rpartition(".")[0] in norms}
    assert len(held) == 4 * len(norms) > 0
    assert all(torch.equal(after[key], before[key]) for key in held)
    trained = set(after) - held
    assert all(not torch.equal(after[key], before[key]) for key in trained)


def test_a_finished_cell_is_kept_and_other_settings_are_refused(planned):
    study = planned(norms=("GN",), batch_sizes=(16,))
    (cell,) = study.cells
    study.survey()
    assert not study.outcomes
    study.clear(cell)
    cfg = load_config(str(study.config(cell)), work_dir=str(study.folder(cell)))
    launch.build_runner(cfg).train()
    # Neither another grid nor another number of jobs is another training.
    study = planned(norms=("GN", "BN*"), batch_sizes=(16, 4))
    study.survey()
    assert [cell.id for cell in study.outcomes] == ["few_gn-8g_b16_seed0"]
    assert study.outcomes[cell].metrics["top1_error"] >= 0
    with pytest.raises(ValueError, match=r"few_gn-8g_b16_seed0 was trained with other settings: cfg\.\S+ = "):
        planned(norms=("GN",), batch_sizes=(16,), epochs=2).survey()
    # Nor is a training by another launcher.
    path = study.folder(cell) / SETTINGS
    text, changes = re.subn(r"(num_workers|checkpoint\.max_keep_ckpts) = \d", r"\1 = 9", path.read_text())
    assert changes == 4
    path.write_text(text)
    study.survey()
    # The whole folder may be moved.
    moved = study.options.out.rename(study.options.out.with_name("moved"))
    study = planned(norms=("GN",), batch_sizes=(16,), out=moved)
    study.survey()
    assert study.outcomes[cell].status == "done"
    (study.folder(cell) / SETTINGS).unlink()
    with pytest.raises(ValueError, match="other settings: nothing, now cfg"):
        study.survey()


def test_a_plan_leaves_the_folder_of_a_study_at_work_as_it_is(planned):
    study = planned(norms=("GN",), batch_sizes=(16,))
    (cell,) = study.cells
    study.record_settings(cell)
    before = {path: path.read_text() for path in (study.config(cell), study.folder(cell) / SETTINGS)}
    plan(Options(**(vars(study.options) | dict(epochs=3))))
    assert {path: path.read_text() for path in before} == before


def test_a_slurm_job_that_has_begun_keeps_its_settings(planned):
    slurm = dict(norms=("GN",), batch_sizes=(16,), launcher="slurm")
    study = planned(**slurm)
    (cell,) = study.cells
    study.record_settings(cell)
    (study.folder(cell) / "run.json").write_text('{"train": {"ended": null}}')
    study.survey()
    with pytest.raises(ValueError, match="was trained with other settings"):
        plan(Options(**(vars(study.options) | dict(epochs=3)))).survey()


def test_validation_images_are_read_before_anything_is_trained(planned, images, tmp_path):
    # As ImageNet's archive has them.
    flat = tmp_path / "flat"
    shutil.copytree(images, flat)
    for path in list((flat / "val").glob("*/*")):
        path.rename(flat / "val" / path.name)
    for folder in list((flat / "val").glob("*/")):
        folder.rmdir()
    with pytest.raises(ValueError, match=r"val_dataloader\.dataset of \S+ cannot be read: .*subfolders"):
        planned(data=str(flat))


def test_syncbn_is_never_plain_bn(planned, monkeypatch):
    (cell,) = planned(norms=("SyncBN",), batch_sizes=(16,)).cells
    study = planned(norms=("SyncBN",), batch_sizes=(16,))
    study.survey()
    assert study.outcomes[cell].status == "skipped"
    assert study.outcomes[cell].reason.startswith("SyncBN of one process is BN: it needs --launcher")
    study = planned(norms=("SyncBN",), batch_sizes=(8,), launcher="pytorch", processes=2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert study.skip_reason(study.cells[0]) == "torch has no SyncBN for the CPU: it needs GPUs"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert study.skip_reason(study.cells[0]) is None
    monkeypatch.undo()
    # The nodes have what this machine may not have.
    study = planned(norms=("SyncBN",), batch_sizes=(8,), launcher="slurm", processes=2)
    assert study.skip_reason(study.cells[0]) is None
    assert Config.fromfile(study.config(study.cells[0])).model.backbone.norm_cfg.type == "SyncBN"


def test_batch_size_is_a_process_s(planned):
    study = planned(norms=("GN",), batch_sizes=(8,), launcher="slurm", processes=2)
    facts = study.facts[study.cells[0]]
    assert (facts["processes"], facts["total_batch"], facts["iterations"]) == (2, 16, 2)
    base = load_config(CONFIG)
    assert float(facts["lr"]) == pytest.approx(
        base.optim_wrapper.optimizer.lr * 16 / base.auto_scale_lr.base_batch_size
    )
    # What a job goes on from after an interruption.
    assert Config.fromfile(study.config(study.cells[0])).default_hooks.checkpoint.max_keep_ckpts == 1


def test_detection_of_the_users_starts_bn_frozen_from_torchvision(tmp_path):
    digits = make_digits(tmp_path / "digits", num_train=8, num_val=4)
    (tmp_path / "digits/train2017").symlink_to(digits.train)
    (tmp_path / "digits/val2017").symlink_to(digits.val)
    for split in ("train", "val"):
        annotations = tmp_path / "digits/annotations"
        (annotations / f"instances_{split}2017.json").symlink_to(annotations / f"instances_{split}.json")
    options = Options("detection", tmp_path / "out", str(tmp_path / "digits"), ("BN*", "GN"), (2,), seeds=1)
    # COCO's class names are not the digits', whose images have no object of theirs.
    config = tmp_path / "config.py"
    config.write_text(
        "_base_ = 'mmgn::scratch/mask-rcnn_r50-scratch_fpn_fusedgn-all_3x_coco.py'\n"
        "train_dataloader = dict(dataset=dict(filter_cfg=None))\n"
    )
    study = written(plan(Options(**(vars(options) | dict(config=str(config))))))
    frozen, group = study.cells
    assert study.waits_for(frozen) is None
    assert study.facts[frozen]["start"] == "torchvision://resnet50"
    assert study.facts[group]["start"] == "scratch"
    assert Config.fromfile(study.config(frozen)).model.backbone.init_cfg.checkpoint == "torchvision://resnet50"
    # What stays as it is stays out of the difference: building the base's model has not taken its config apart.
    assert "roi_head" not in study.config(group).read_text()
    assert study.facts[group]["lr"] == f"{0.02 * 2 / 16:g}"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (
            dict(data="no/such/folder"),
            "--data: no folder .*/no/such/folder; generated data sets are",
        ),
        (dict(groups=(5,)), "--groups: 5 does not divide the 16 channels"),
        (dict(batch_sizes=(64,)), "64 x 1 is more than the 32 training images"),
        (dict(epochs=0), "--epochs must be at least 1, got 0"),
        (
            dict(config="digits/mask-rcnn_r18-mini_fpn_bn_digits.py"),
            "a config of mmdet, and classification needs one of",
        ),
        (dict(processes=2), "--gpus 2 needs --launcher pytorch or slurm"),
        (dict(quick=True), "--quick is for embedded data"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_it_is(planned, wrong, told):
    with pytest.raises((ValueError, FileNotFoundError), match=told):
        planned(**wrong)


def test_a_norm_that_would_stay_as_it_is_is_refused(planned, tmp_path):
    config = tmp_path / "config.py"
    # A neck with batch norm by default, which no norm_cfg tells.
    config.write_text(
        f"_base_ = {str(find_config(CONFIG))!r}\n"
        "model = dict(neck=dict(type='LinearNeck', in_channels=64, out_channels=64, _delete_=True))\n"
    )
    with pytest.raises(ValueError, match=r"1 norms would not be GN, first neck\.norm, which is BN: a study needs"):
        planned(config=str(config), norms=("GN",))
