import os
import subprocess
import sys
import time

import pytest

from mmgn.ops.triton import lock
from mmgn.ops.triton.lock import compile_lock

HOLD = """
from mmgn.ops.triton.lock import compile_lock

with compile_lock("k") as held:
    print(held, flush=True)
    input()
"""
# Compiles a small norm's kernels when told to, and says how many of them it compiled and how many it found.
COMPILE = """
from mmgn.ops.triton.ahead import Norm, Tally, compile_for
from mmgn.ops.triton.problem import Problem

tally = Tally()
compile_for(90, [])
print(tally.compiled, tally.found, flush=True)
input()
compile_for(90, [Norm(Problem(2, 64, 49, 8), None), Norm(Problem(2, 64, 4096, 8), (True, True, True, False))])
print(tally.compiled, tally.found, flush=True)
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def start():
    """Start Python on code that prints a line and waits for one; returns the process and the line."""
    started = []

    def start(code):
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        return process, process.stdout.readline().strip()

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_one_process_at_a_time(start, monkeypatch):
    process, held = start(HOLD)
    assert held == "True"
    monkeypatch.setattr(lock, "PATIENCE", 0.2)
    with compile_lock("another") as held:
        assert held
    before = time.monotonic()
    with compile_lock("k") as held:
        assert not held
    assert 0.2 <= time.monotonic() - before < 2
    process.communicate("\n")
    with compile_lock("k") as held:
        assert held


def test_a_lock_goes_with_its_process(start, monkeypatch):
    process, held = start(HOLD)
    assert held == "True"
    process.kill()
    process.wait()
    monkeypatch.setattr(lock, "PATIENCE", 0.2)
    with compile_lock("k") as held:
        assert held


def test_a_lock_is_given_back_when_compilation_fails(monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE", 0.2)
    with pytest.raises(RuntimeError), compile_lock("k"):
        raise RuntimeError
    with compile_lock("k") as held:
        assert held


def test_goes_on_where_there_can_be_no_lock(cache, monkeypatch):
    cache.write_text("a file")
    with compile_lock("k") as held:
        assert not held
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with compile_lock("k") as held:
        assert not held


@pytest.mark.parametrize("home", ["TRITON_HOME", "HOME"])
def test_lies_where_triton_keeps_its_kernels(tmp_path, monkeypatch, home):
    monkeypatch.delenv("TRITON_CACHE_DIR")
    monkeypatch.setenv(home, str(tmp_path))
    code = "from triton import knobs; print(knobs.cache.dir)"
    triton = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert str(lock.cache_directory()) == triton == str(tmp_path / ".triton" / "cache")


def test_needs_no_home(monkeypatch):
    monkeypatch.delenv("TRITON_CACHE_DIR")
    # As where neither HOME nor the password file knows the user.
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert lock.cache_directory().parts[-2:] == (".triton", "cache")


def test_processes_that_share_a_cache_compile_each_kernel_once(start):
    # The probe, which every process launches before all else, is not in question.
    start(COMPILE)
    (one, first), (two, second) = start(COMPILE), start(COMPILE)
    assert first == second == "0 1"
    for process in (one, two):
        process.stdin.write("\n")
        process.stdin.flush()
    tallies = [tuple(map(int, process.communicate()[0].split())) for process in (one, two)]
    kernels = sum(tallies[0])
    assert sum(tallies[1]) == kernels
    assert sum(compiled for compiled, _ in tallies) == kernels - 1 > 5
