"""Trainings by tools/train.py that are killed and resumed; many more moments are in tests/soak/test_interrupted.py."""

import pytest

pytest.importorskip("mmdet")


def test_a_training_that_was_killed_ends_with_the_bits_of_one_that_was_not(killed_trainings):
    # After the first epoch, and then while a checkpoint is written.
    moments = [{"part": 0.0, "since": "epoch_1.pth"}, {"write": 1, "delay": None}]
    _, (killed,) = killed_trainings(1, [moments])
    assert killed["killed"] == 2
    # A checkpoint may be on its way at the first one too.
    assert killed["writing"] >= 1


def test_a_training_of_two_processes_one_of_which_was_killed_too(killed_trainings):
    _, (killed,) = killed_trainings(2, [[{"part": 0.0, "since": "epoch_1.pth", "rank": 1}]])
    assert killed["killed"] >= 1
