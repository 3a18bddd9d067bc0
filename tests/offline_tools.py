"""Run tools one after the other with the network denied: offline_tools.py LOG COMMANDS, the latter as JSON.

Each runs in a fork of a process that has imported what they share; what one tries to reach is a line of LOG.
"""

import json
import os
import runpy
import sys
from pathlib import Path

LOG, COMMANDS = Path(sys.argv[1]), json.loads(sys.argv[2])
ASKED = {"socket.connect": 1, "socket.sendto": 1, "socket.getaddrinfo": 0, "socket.gethostbyname": 0}


def deny(event, args):
    if event not in ASKED:
        return
    address = args[ASKED[event]]
    # A path is a socket of this machine, as data loaders use them.
    host = address[0] if isinstance(address, tuple) else address if event.startswith("socket.get") else None
    if host and not str(host).startswith(("127.", "::1", "localhost")):
        with LOG.open("a") as log:
            log.write(f"{sys.argv[0]}: {event} {host}\n")
        raise PermissionError(f"the network is denied: {host}")


def run(command):
    pid = os.fork()
    if pid == 0:
        sys.argv = command
        sys.path.insert(0, str(Path(command[0]).parent))
        status = 0
        try:
            runpy.run_path(command[0], run_name="__main__")
        except SystemExit as end:
            print(end.code)
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        sys.stdout.flush()
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


sys.addaudithook(deny)
import mmgn  # noqa: E402, F401, I001
import mmdet.apis  # noqa: E402, F401

for command in COMMANDS:
    print("$", *command, flush=True)
    status = run(command)
    if status:
        sys.exit(f"{command[0]} ended with {status}")
