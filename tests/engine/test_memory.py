import subprocess
import sys

import pytest

# In a process of its own: this one may be larger than what is held here.
SCRIPT = """
import subprocess, sys, torch
from mmgn.engine.memory import peak_memory_mb, restart_peak

CPU = torch.device("cpu")
if len(sys.argv) > 1:
    print(peak_memory_mb(CPU))
    sys.exit()
small = peak_memory_mb(CPU)
held = bytearray(b"1") * (1500 * 2**20)
large = peak_memory_mb(CPU)
child = subprocess.run([sys.executable, __file__, "child"], check=True, capture_output=True)
del held
restart_peak(CPU)
print(small, large, float(child.stdout), peak_memory_mb(CPU))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="proc(5)")
def test_the_peak_of_a_process_is_its_own_and_restarts(tmp_path):
    script = tmp_path / "peak.py"
    script.write_text(SCRIPT)
    output = subprocess.run([sys.executable, script], check=True, capture_output=True, text=True).stdout
    small, large, of_child, restarted = map(float, output.split())
    assert large > 1500 + small / 2
    # It was forked from the large one.
    assert of_child < 1.5 * small
    assert restarted < 1.5 * small
