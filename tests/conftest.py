import signal

import pytest


@pytest.fixture(autouse=True, scope="session")
def interruptible():
    """Let what the tests start be interrupted: a shell's background jobs, and their children, ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
