import os

import pytest

import mmgn  # noqa: F401  # before mmdet: it serves mmcv's ops
from mmgn.engine.norm_swap import SwapRequest, check
from mmgn.engine.norm_swap.check import Check, check_package
from mmgn.engine.norm_swap.trial import NO_MODEL, NOTHING, RUNS, SAME, UNBUILT, WORSE, Outcome


def test_each_model_is_tried_once_and_counted():
    seconds = []
    checked = check_package("mmdet", "ssd/ssd[3l]*.py", tell=lambda outcome, s: seconds.append(s))
    categories = {outcome.config: outcome.category for outcome in checked.outcomes}
    assert categories == {
        "ssd/ssd300_coco.py": NOTHING,
        "ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py": RUNS,
    }
    assert len(seconds) == 2
    assert checked.worse == []


def test_parts_and_twins_are_no_models_of_their_own():
    checked = check_package("mmdet", "_base_/schedules/schedule_[12]x.py")
    assert {outcome.category for outcome in checked.outcomes} == {NO_MODEL}
    models: set[str] = set()
    twins = ["yolox/yolox_tiny_8xb8-300e_coco.py" for _ in range(2)]
    request = SwapRequest(num_groups=32)
    first, second = (check._try("mmdet", name, models, request) for name in twins)
    assert (first.category, second.category) == (WORSE, SAME)
    assert "num_groups=32 does not divide" in first.reason


def test_a_process_that_dies_harms_no_other_and_counts_by_when_it_dies(monkeypatch):
    # What a crash of a compiled extension does.
    def crash_before(*args, **kwargs):
        os._exit(3)

    def crash_after(*args, passed, **kwargs):
        passed()
        os._exit(4)

    monkeypatch.setattr(check, "try_swap", crash_before)
    (outcome,) = check_package("mmdet", "ssd/ssd300*.py").outcomes
    assert (outcome.category, outcome.reason) == (UNBUILT, "its process ends with exit code 3")
    monkeypatch.setattr(check, "try_swap", crash_after)
    (outcome,) = check_package("mmdet", "ssd/ssd300*.py").outcomes
    assert (outcome.category, outcome.reason) == (WORSE, "its process ends with exit code 4")


def test_only_python_files_are_configs(tmp_path, monkeypatch):
    (tmp_path / "ssd" / "__pycache__").mkdir(parents=True)
    (tmp_path / "ssd" / "schedule.py").write_text("max_epochs = 12\n")
    (tmp_path / "ssd" / "metafile.yml").write_text("Models: []\n")
    monkeypatch.setattr(check, "package_configs", lambda package: tmp_path)
    tried = []
    monkeypatch.setattr(check, "_try", lambda package, name, *args: tried.append(name) or Outcome(name, NO_MODEL))
    check_package("mmdet", "ssd/*")
    assert tried == ["ssd/schedule.py"]
    with pytest.raises(FileNotFoundError, match="no config"):
        check_package("mmdet", "ssd/*.yml")


def test_summary():
    checked = Check([Outcome("a.py", RUNS), Outcome("b.py", WORSE, "ValueError: no"), Outcome("c.py", RUNS)])
    assert str(checked).splitlines() == [
        f"{WORSE}: b.py: ValueError: no",
        "",
        f"    2  {RUNS}",
        f"    1  {WORSE}",
        "    3  in all",
    ]
    assert checked.worse == [checked.outcomes[1]]


def test_no_such_configs():
    with pytest.raises(FileNotFoundError, match="no config 'nothing/"):
        check_package("mmdet", "nothing/*.py")
