"""srun as far as the scripts use it, on a machine without Slurm: the tasks of a step, ended together."""

import os
import re
import shlex
import subprocess
import sys
import time

print(shlex.join(sys.argv[1:]), flush=True)
command = sys.argv[sys.argv.index("-u") - 1 :]
tasks = int(re.search(r"--ntasks=(\d+)", " ".join(sys.argv)).group(1))
step = {name: str(tasks) for name in ("SLURM_NTASKS", "SLURM_STEP_NUM_TASKS")}
step |= dict.fromkeys(("SLURM_NODELIST", "SLURM_STEP_NODELIST"), "localhost")
ranks = [{"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} for rank in range(tasks)]
processes = [subprocess.Popen(command, env={**os.environ, **step, **rank}) for rank in ranks]
while any(process.poll() is None for process in processes):
    time.sleep(0.1)
    if any(process.poll() for process in processes):
        for process in processes:
            process.kill()
sys.exit(max(abs(process.wait()) for process in processes))
