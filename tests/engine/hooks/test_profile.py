import gzip
import json
from pathlib import Path

import pytest

pytest.importorskip("mmengine")


def trace(runner):
    (file,) = Path(runner.work_dir, "profile").iterdir()
    with gzip.open(file, "rt") as text:
        return [event["name"] for event in json.load(text)["traceEvents"] if "name" in event]


# Within training; to its end; all of it; and one.
@pytest.mark.parametrize(("skip", "iters", "traced"), [(2, 3, 3), (20, 2, 2), (5, 40, 12), (1, 1, 1)])
def test_some_iterations_are_traced(build_runner, capsys, skip, iters, traced):
    runner = build_runner(hooks=[{"type": "ProfileHook", "skip": skip, "iters": iters}])
    runner.train()
    names = trace(runner)
    # A forward has two linear layers.
    assert names.count("aten::linear") == 2 * traced
    output = capsys.readouterr().out
    assert "aten::addmm" in output
    assert f"Profile of {traced} iterations: {runner.work_dir}/profile; open a trace in" in output


def test_a_resumed_run_is_traced_too(build_runner):
    build_runner(epochs=2).train()
    runner = build_runner(resume=True, hooks=[{"type": "ProfileHook", "skip": 1, "iters": 2}])
    runner.train()
    assert trace(runner).count("aten::linear") == 4


def test_a_training_that_is_over_is_not_traced(build_runner):
    build_runner().train()
    runner = build_runner(resume=True, hooks=[{"type": "ProfileHook"}])
    runner.train()
    assert not Path(runner.work_dir, "profile").exists()


def test_counts_are_checked(build_runner):
    with pytest.raises(ValueError, match="at least 1, got 0 and 3"):
        build_runner(hooks=[{"type": "ProfileHook", "skip": 0}])
