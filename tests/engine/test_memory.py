import subprocess
import sys

import pytest
import torch

from mmgn.engine.memory import peak_memory_mb, restart_peak

CPU = torch.device("cpu")
MIB = 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="proc(5)")
def test_the_peak_of_a_process_restarts_and_is_its_own():
    held = bytearray(b"1") * (400 * MIB)
    high = peak_memory_mb(CPU)
    child = "import torch; from mmgn.engine.memory import peak_memory_mb as p; print(p(torch.device('cpu')))"
    of_child = float(subprocess.run([sys.executable, "-c", child], check=True, capture_output=True, text=True).stdout)
    assert high >= 400
    # It was forked from this one.
    grown = bytearray(b"1") * (1500 * MIB)
    assert peak_memory_mb(CPU) >= 1900
    again = float(subprocess.run([sys.executable, "-c", child], check=True, capture_output=True, text=True).stdout)
    assert again == pytest.approx(of_child, rel=0.2)
    del held, grown
    restart_peak(CPU)
    assert peak_memory_mb(CPU) < 1900
