import json

import pytest
import torch

from mmgn.perf import benchmark, gate
from mmgn.perf.benchmark import Options

CPU = torch.device("cpu")


def test_names_tell_kinds_of_runs_apart():
    assert Options().suffix == ""
    assert Options(tiny=True, layers_only=True).suffix == "_tiny_layers_only"
    assert len(Options().places) > len(Options(quick=True).places) == len(benchmark.QUICK)


def test_a_wrong_kernel_leaves_no_result(tmp_path, monkeypatch):
    # Right in the gate's cases, wrong in a cell that is timed.
    real = gate.group_norm
    wrong = {(4, 64, 7, 7)}
    monkeypatch.setattr(
        gate, "group_norm", lambda x, *a, **k: real(x, *a, **k) * (1.5 if tuple(x.shape) in wrong else 1)
    )
    seen = []
    options = Options(tiny=True, layers_only=True, repeats=1, compile_seconds=0)
    with pytest.raises(gate.WrongKernelError, match="tiny RoIs"):
        benchmark.run(CPU, "native", tmp_path, options, seen.append)
    assert any("tiny, contiguous" in line for line in seen)
    assert list(tmp_path.iterdir()) == []


def test_rows_are_written_as_they_come(tmp_path):
    found = []

    def look(line):
        found.extend(json.loads(p.read_text())["layers"][-1] for p in tmp_path.glob("*.partial.json"))

    options = Options(tiny=True, quick=True, layers_only=True, repeats=1, compile_seconds=0)
    path = benchmark.run(CPU, "native", tmp_path, options, look)
    report = json.loads(path.read_text())
    assert found == report["layers"]
    assert report["models"] == {"reason": "--layers-only"}
    assert report["settings"]["l2_flushed"] is False
