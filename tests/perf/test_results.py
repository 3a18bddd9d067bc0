import json

import pytest
import torch

from mmgn.perf import results

GPU = {"device": "NVIDIA H100 80GB HBM3", "device_type": "cuda", "driver": "580.1", "mmdet": None}


def row(mode, ours=10.0, copy=9.0, **other):
    figures = {"mmgn": {"us": ours, "host_us": 20.0, "peak_mib": 3.25}, **other}
    return {
        "name": "res2",
        "shape": [2, 64, 200, 336],
        "activation": "relu",
        "residual": mode != "forward",
        "layout": "contiguous",
        "dtype": "float16",
        "mode": mode,
        "passes_at_limit": 2,
        "copy": {"us": copy, "host_us": 5.0, "peak_mib": 0.0},
        "contenders": figures,
        "ratios": results.ratios(figures, "mmgn", "us"),
        "fraction_of_copy": copy / ours,
    }


@pytest.fixture
def report():
    eager = {"us": 25.0, "host_us": 30.0, "peak_mib": 6.5}
    lost = {"reason": "no | such contender"}
    return {
        "machine": dict(GPU),
        "settings": {"repeats": 30},
        "gate": "45 cases right",
        "layers": [
            row("forward", eager=eager, apex=lost),
            row("forward", 20.0, eager=eager, apex=lost),
            row("forward+backward", eager={"reason": "OutOfMemoryError: too big"}, apex=lost),
            {"name": "stem", "shape": [1], "layout": "contiguous", "dtype": "float32", "reason": "out of memory"},
        ],
        "models": {"backend": "triton (fastest)", "workload": "2 images"},
        "iterations": [
            {
                "part": "training",
                "precision": "AMP",
                "arms": {
                    "native GN": {"ms": 300.0, "peak_mib": 2048.0},
                    "frozen BN": {"reason": "no weights"},
                    "FusedGN": {"ms": 200.0, "peak_mib": 1024.0},
                },
                "ratios": {"native GN": 1.5},
            }
        ],
    }


def test_ratios_are_over_the_given_one_and_leave_out_what_failed():
    figures = {"a": {"us": 2.0}, "b": {"us": 5.0}, "c": {"reason": "absent"}}
    assert results.ratios(figures, "a", "us") == {"b": 2.5}
    assert results.ratios(figures, "a", "us", 2) == {"b": 5.0}
    assert results.ratios(figures, "c", "us") == {}


def test_names_say_the_device_and_that_it_is_a_cpu():
    assert results.stem(GPU) == "nvidia-h100-80gb-hbm3"
    assert results.stem({"device": "AMD EPYC", "device_type": "cpu"}, "_tiny") == "cpu-only_amd-epyc_tiny"


def test_the_machine_is_described():
    machine = results.describe(torch.device("cpu"))
    assert machine["torch"] == torch.__version__
    assert machine["device_type"] == "cpu"
    assert {"date", "python", "triton", "mmdet", "mmgn"} <= machine.keys()


def test_an_unfinished_run_leaves_an_earlier_result_alone(tmp_path, report):
    path = results.write(report, tmp_path, "gpu", complete=True)
    report["gate"] = "second run"
    partial = results.write(report, tmp_path, "gpu", complete=False)
    assert (path.name, partial.name) == ("gpu.json", "gpu.partial.json")
    assert json.loads(path.read_text())["gate"] == "45 cases right"
    assert json.loads(partial.read_text())["gate"] == "second run"
    results.write(report, tmp_path, "gpu", complete=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["gpu.json", "gpu.md"]
    assert json.loads(path.read_text()) == report


def test_discard_removes_the_unfinished_alone(tmp_path, report):
    results.write(report, tmp_path, "gpu", complete=True)
    results.write(report, tmp_path, "gpu", complete=False)
    results.discard(tmp_path, "gpu")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["gpu.json", "gpu.md"]


def test_json_has_a_line_per_row(report):
    lines = results.to_json(report).splitlines()
    assert sum('"mode"' in line for line in lines) == 3
    assert len(lines) < 25


def test_markdown_says_figures_ratios_and_reasons(report):
    text = results.to_markdown(report)
    assert "# mmgn benchmark: NVIDIA H100 80GB HBM3" in text
    assert results.CPU_NOTE not in text
    assert "| mmdet | absent |" in text
    # Ratios of 2.5 and 1.25: median and smallest; fractions of 90% and 45%.
    assert "| float16 | contiguous | 68% (45%) | 1.88 (1.25) | – |" in text
    assert "| res2 | 2×64×200×336 | relu | 9.0 | 90% | 10.0 | 25.0 (2.50×) | – [1] |" in text
    assert "| res2 | 2×64×200×336 | add, relu | 9.0 | 90% | 10.0 | – [2] | – [1] |" in text
    assert "| res2 | float16 | contiguous | 3.2 | – [2] | – [1] |" in text
    assert "| forward | float16 | contiguous | 20 | 30 | – |" in text
    assert "| AMP | 300.0 (1.50×), 2.00 GiB | – [3] | 200.0, 1.00 GiB |" in text
    assert "1. no | such contender\n2. OutOfMemoryError: too big\n3. no weights" in text
    assert "Not measured: stem, contiguous, float32: out of memory." in text


def test_markdown_of_a_cpu_cannot_be_mistaken(report):
    report["machine"]["device_type"] = "cpu"
    report["models"] = {"reason": "mmdet does not import"}
    report["iterations"] = []
    text = results.to_markdown(report)
    assert results.CPU_NOTE in text
    assert "Not measured: mmdet does not import." in text
