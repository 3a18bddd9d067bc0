import os
import signal

import pytest
import torch

# Triton asks whether to interpret when a kernel is decorated, its own library's at its import: so before anything
# imports it. What must compile here runs in a process of its own, without the variable.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


# Moves the data of every config that is loaded.
os.environ.pop("MMDET_DATASETS", None)


@pytest.fixture(autouse=True, scope="session")
def interruptible():
    """Let what the tests start be interrupted: a shell's background jobs, and their children, ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
