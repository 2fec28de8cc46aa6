"""`python timed.py SCRIPT ARGUMENT …`: runs a trainer's script as it stands, and lets it take a step only when it is told to.

A step goes from the end of one update to the end of the next, whatever the script does in between. At each end it says how many seconds
the step took, and how many seconds of all cores together it computed, on TURNS_OUT, and waits on TURNS_IN for a byte; at its end the process ends. So two trainers can share a machine and
never compute at the same time, and what else the machine does meets both alike. Imports nothing of this project: each trainer
runs with its own packages.
"""

import os
import runpy
import sys
import time
from pathlib import Path

from torch.optim.optimizer import register_optimizer_step_post_hook

_begun = time.perf_counter(), time.process_time()


def _wait(*_: object) -> None:
    global _begun
    seconds, computed = time.perf_counter() - _begun[0], time.process_time() - _begun[1]
    os.write(int(os.environ["TURNS_OUT"]), f"{seconds} {computed}\n".encode())
    if not os.read(int(os.environ["TURNS_IN"]), 1):
        os._exit(0)
    _begun = time.perf_counter(), time.process_time()


register_optimizer_step_post_hook(_wait)
script = Path(sys.argv[1]).resolve()
sys.argv = sys.argv[1:]
sys.path[0] = str(script.parent)
runpy.run_path(str(script), run_name="__main__")
