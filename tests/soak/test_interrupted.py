"""Trainings that are killed at random moments: the fast selection is in tests/engine/test_killed.py.

The environment's KILLED_TRAININGS is their number.
"""

import os
import random

import pytest

pytest.importorskip("mmdet")

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

KILLS, TRAININGS = 4, int(os.environ.get("KILLED_TRAININGS", "9"))


def moment(source, ranks, first):
    """Return a random moment; of three, one is while a checkpoint is written."""
    if source.random() < 1 / 3:
        delay = None if source.random() < 0.5 else source.uniform(0, 0.003)
        return {"write": source.choice((1, 2, 3)) if first else 1, "delay": delay}
    # What a run has left is shorter than a whole training.
    return {"part": source.uniform(0, 0.9 if first else 0.4), "rank": source.randrange(ranks)}


@pytest.mark.parametrize("ranks", [1, 2])
def test_trainings_killed_at_random_moments_end_with_the_same_bits(killed_trainings, figures, ranks):
    source = random.Random(ranks)
    plan = [[moment(source, ranks, number == 0) for number in range(KILLS)] for _ in range(TRAININGS)]
    whole, killed = killed_trainings(ranks, plan)
    # A run may be over before its moment.
    kills = sum(training["killed"] for training in killed)
    assert kills >= 0.8 * KILLS * TRAININGS
    lost = sum(training["seconds"] - whole["seconds"] for training in killed)
    figures(
        f"interrupted_{ranks}",
        f"SIGKILL of {'the process' if ranks == 1 else 'one of the two processes'} of a training at random moments, "
        "and --resume: weights, EMA, optimizer, schedules, random states and the best checkpoint at the end, against "
        "those of a training that was not killed",
        [
            {
                "trainings": len(killed),
                "kills": kills,
                "while a checkpoint was written": sum(training["writing"] for training in killed),
                "resumed": sum(training["runs"] - 1 for training in killed),
                "bits that differ at the end": sum(training["bits"] for training in killed),
                "seconds of a training": whole["seconds"],
                "seconds lost by a kill": lost / kills,
            }
        ],
    )
