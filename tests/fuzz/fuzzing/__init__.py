"""Targets for fuzzing: each takes bytes, and fails by whatever the code under it must not raise or do.

A target is a module with ``check(data, folder)``, which does its work in an empty folder, ``fresh(rng)``, which makes
an input, and ``mutate(data, rng)``, which changes one.
"""

#: The modules of the targets, in the order in which they are run.
TARGETS = ("checkpoints", "annotations", "configs", "reports", "arguments", "plans")
