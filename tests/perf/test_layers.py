import pytest
import torch

from mmgn.perf import gate, layers
from mmgn.perf.shapes import Shape

CPU = torch.device("cpu")
PLACES = (Shape("small", 2, 64, 5, 7),)
BOTH = (*PLACES, Shape("block", 2, 64, 4, 6, residual=True))


@pytest.fixture(scope="module")
def rows():
    return list(layers.measure(CPU, "native", BOTH, ("float32", "float16"), compile_seconds=0, repeats=3, warmup=1))


def test_a_row_per_mode_layout_and_dtype(rows):
    assert [(r["dtype"], r["layout"], r["name"], r["mode"]) for r in rows] == [
        (dtype, layout, name, mode)
        for dtype in ("float32", "float16")
        for layout in ("contiguous", "channels_last")
        for name in ("small", "block")
        for mode in ("forward", "forward+backward")
    ]


def test_every_contender_has_a_figure_or_a_reason(rows):
    for row in rows:
        names = ["mmgn", "eager", "eager autocast", "torch.compile", "frozen BN", "Apex (SiLU)"]
        assert list(row["contenders"]) == names
        for figures in (row["copy"], *row["contenders"].values()):
            if "reason" in figures:
                assert figures["reason"]
            else:
                assert 0 < figures["low_us"] <= figures["us"] <= figures["high_us"]
                assert figures["peak_mib"] is None
        assert "spent" in row["contenders"]["torch.compile"]["reason"]
        assert ("reason" in row["contenders"]["eager autocast"]) == (row["dtype"] == "float32")


def test_ratios_are_of_the_medians(rows):
    for row in rows:
        ours = row["contenders"]["mmgn"]["us"]
        assert row["ratios"]["eager"] == pytest.approx(row["contenders"]["eager"]["us"] / ours, abs=1e-3)
        assert "mmgn" not in row["ratios"]
        # A copy makes two passes.
        passes = {("forward", False): 2, ("forward+backward", False): 5, ("forward", True): 3}
        scale = passes.get((row["mode"], row["residual"]), 7) / 2
        assert row["fraction_of_copy"] == pytest.approx(scale * row["copy"]["us"] / ours, abs=1e-3)


def test_a_cell_that_is_wrong_is_not_timed(monkeypatch):
    monkeypatch.setattr(gate, "group_norm", lambda x, *args, **kwargs: x * 1.5)
    with pytest.raises(gate.WrongKernelError, match="small, contiguous, float16: y: error"):
        next(layers.measure(CPU, "native", PLACES, ("float16",)))


def test_running_out_of_memory_is_a_reason(monkeypatch):
    def greedy(*args, **kwargs):
        raise torch.cuda.OutOfMemoryError("80 GiB wanted")

    monkeypatch.setattr(gate, "group_norm", greedy)
    rows = list(layers.measure(CPU, "native", PLACES, ("float16",)))
    assert [r["reason"] for r in rows] == ["OutOfMemoryError: 80 GiB wanted"] * 2
