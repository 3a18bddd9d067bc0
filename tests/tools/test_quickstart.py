"""What goes wrong before a training starts; the training itself, to the last figure, is in .ci/run."""

import importlib.util
from pathlib import Path

import pytest
import torch

SPEC = importlib.util.spec_from_file_location("quickstart", Path(__file__).parents[2] / "tools" / "quickstart.py")
quickstart = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(quickstart)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--epochs", "0"], "--epochs must be at least 1, got 0"),
        (["--seed", "-1"], "--seed must lie from 0 to 2**32 - 1, got -1"),
        (["--device", "tpu"], "--device must be auto, cpu, cuda or cuda:N, got 'tpu'"),
        (["--device", "cpu:1"], "got 'cpu:1'"),
        (["--work-dir", "mine"], "mine exists and is not an earlier run"),
        (["--data-dir", "mine"], "mine exists and is not a digits data set"),
    ],
)
def test_wrong_input_ends_in_one_paragraph_and_touches_nothing(tmp_path, run_tool, args, said):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    status, output = run_tool(tmp_path, "quickstart.py", *args)
    assert status != 0
    assert said in output
    assert "Traceback" not in output
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "years of work"


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about a machine without a GPU")
def test_a_gpu_that_is_not_there(tmp_path, run_tool):
    status, output = run_tool(tmp_path, "quickstart.py", "--device", "cuda")
    assert status != 0
    assert "use --device cpu" in output


def test_an_earlier_run_is_kept_under_another_name(tmp_path):
    for content in ("first", "second"):
        run = tmp_path / "run"
        run.mkdir()
        assert not quickstart.holds_earlier_run(run)
        (run / "run.json").write_text(content)
        assert quickstart.holds_earlier_run(run)
        quickstart.set_aside(run)
        assert not run.exists()
    assert (tmp_path / "run.1/run.json").read_text() == "first"
    assert (tmp_path / "run.2/run.json").read_text() == "second"


def test_device_indices_count_within_what_is_visible(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    quickstart.choose_device("cuda:1")
    assert quickstart.os.environ["CUDA_VISIBLE_DEVICES"] == "7"
    with pytest.raises(SystemExit, match="not among"):
        quickstart.choose_device("cuda:1")
