import json

import pytest
import torch


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_what_works(run_tool, tmp_path):
    status, said = run_tool(tmp_path, "benchmark.py")
    assert status == 2
    assert all(way in said for way in ("NVIDIA GPU", "triton", "--static", "--plan", "--device cpu --shapes tiny"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--repeats", "0"), "at least 1, got 0"),
        (("--device", "teapot"), "--device teapot"),
        (("--backend", "native"), "is for --device cpu"),
    ],
)
def test_bad_arguments_are_named(run_tool, tmp_path, arguments, said):
    status, output = run_tool(tmp_path, "benchmark.py", *arguments)
    assert status == 2
    assert said in output


def test_a_cpu_run_is_marked_and_kept_apart(run_tool, tmp_path):
    options = ("--device", "cpu", "--shapes", "tiny", "--quick", "--repeats", 3, "--compile-seconds", 0)
    status, said = run_tool(tmp_path, "benchmark.py", *options)
    assert status == 0, said
    assert not (tmp_path / "benchmarks").exists()
    page, data = sorted((tmp_path / "work_dirs/benchmark").iterdir(), key=lambda p: p.suffix, reverse=True)
    assert page.name.startswith("cpu-only_")
    assert "Run on a CPU" in page.read_text()
    report = json.loads(data.read_text())
    assert report["machine"]["device_type"] == "cpu"
    assert {row["dtype"] for row in report["layers"]} == {"float16"}
    assert [row["part"] for row in report["iterations"]] == ["training", "inference"]
    assert str(data.relative_to(tmp_path)) in said
