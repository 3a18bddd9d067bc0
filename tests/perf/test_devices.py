import pytest

from mmgn.perf.devices import A100, B200, GPUS, H100, RTX4090


def test_littles_law_by_hand():
    """3.35 TB/s x 0.65 us = 2.18 MB, over 132 SMs."""
    assert H100.little_bytes == pytest.approx(16.5e3, rel=0.01)


def test_issue_slots_by_hand():
    """14.5 bytes a clock and SM: 4 x 256 bytes take 70.6 clocks of four instructions."""
    assert H100.issue_slots(4) == pytest.approx(282, abs=1)
    assert H100.issue_slots(6) == pytest.approx(424, abs=1)
    assert B200.issue_slots(4) == pytest.approx(149, abs=1)


@pytest.mark.parametrize(
    ("gpu", "registers", "shared", "num_warps", "blocks"),
    [
        (H100, 32, 0, 4, 16),  # 64 warps of 1024 registers: all of them
        (H100, 33, 0, 4, 12),  # registers come by 256 a warp, so 40 a thread: 12 warps of a quarter's 16384
        (H100, 64, 0, 4, 8),
        (H100, 128, 0, 8, 2),
        (H100, 255, 0, 16, 0),  # 8 warps are all that fit
        (H100, 255, 0, 8, 1),
        (H100, 16, 0, 1, 32),  # no more blocks
        (H100, 32, 48 * 1024, 4, 4),  # 49 KiB each of 228
        (A100, 32, 48 * 1024, 4, 3),  # of 164
        (RTX4090, 32, 0, 4, 12),  # 48 warps
        (H100, 32, 300 * 1024, 4, 0),
    ],
)
def test_occupancy_by_hand(gpu, registers, shared, num_warps, blocks):
    assert gpu.occupancy(registers, shared, num_warps) == blocks


def test_a_plan_sees_the_l2_of_the_gpu():
    assert {name: gpu.plan_device().l2_bytes for name, gpu in GPUS.items()} == {
        "a100": 40 * 2**20,
        "h100": 50 * 2**20,
        "h200": 50 * 2**20,
        "b200": 126 * 2**20,
        "rtx4090": 72 * 2**20,
    }
