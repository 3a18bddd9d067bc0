"""Trainings beside each other on the machine's GPUs."""

import pytest
import torch

from mmgn.study.pool import devices


@pytest.mark.parametrize(
    ("visible", "count", "places"),
    [
        (None, 2, ["0", "1", "0"]),
        ("3,GPU-5f", 2, ["3", "GPU-5f", "3"]),
        (None, 0, [None, None, None]),
        ("", 0, [None, None, None]),
    ],
)
def test_trainings_are_spread_over_the_gpus(monkeypatch, visible, count, places):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert devices(3) == places
