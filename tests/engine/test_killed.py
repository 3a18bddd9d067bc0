"""Trainings by tools/train.py that are killed and resumed; many more moments are in tests/soak/test_interrupted.py."""

import pytest

pytest.importorskip("mmdet")


def test_a_training_that_was_killed_ends_with_the_bits_of_one_that_was_not(killed_trainings):
    # While the first best checkpoint is written, and then in the second epoch.
    _, (killed,) = killed_trainings(1, [[{"write": 2, "delay": None}, {"part": 0.3}]])
    assert killed["killed"] == 2
    assert killed["writing"] == 1


def test_a_training_of_two_processes_one_of_which_was_killed_too(killed_trainings):
    _, (killed,) = killed_trainings(2, [[{"part": 0.4, "rank": 1}]])
    assert killed["killed"] >= 1
