"""What does it bring to lay out the base's weights once (`stages/fit/prepack`), in place of at each call as torch does, and what does it cost?

Stable Diffusion 1.5's shape on the CPU, in a process as training's. Both take the same step in turn, so that what else the machine does
meets each alike.
"""

import ctypes
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from benchmarks.compiled.ask import in_turn, trainer_maker
from benchmarks.sd15_shape import build
from lora_pipeline.stages.fit import prepack
from lora_pipeline.stages.fit.process import environment
from lora_pipeline.stages.fit.trainer import Trainer

STEPS = 8


def ask() -> dict[str, object]:
    """See `asked`, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.prepack.ask"]
    told = subprocess.run(command, env=environment(), stdout=subprocess.PIPE, text=True, check=True).stdout
    return json.loads(told.splitlines()[-1])


def asked() -> dict[str, object]:
    """By the pictures' side: seconds of a step either way (median), of the first one, and the last loss. Memory between two steps, MiB."""
    with tempfile.TemporaryDirectory() as folder:
        shape = build(Path(folder) / "sd15")
        told: dict[str, object] = {}
        for side_px in (256, 512):
            make = trainer_maker(shape, Path(folder) / str(side_px), side_px, batch=1)
            with mock.patch.object(prepack, "prepack", return_value=0):
                plain, plain_mib = _opened(make)
            packed, packed_mib = _opened(make)
            told |= {
                f"{side_px} px": in_turn({"at each call": plain, "once": packed}, STEPS),
                "memory, MiB": {"at each call": plain_mib, "once": packed_mib},
            }
            del plain, packed
        return told


def _opened(make: Callable[[], Trainer]) -> tuple[Trainer, int]:
    """A trainer that has taken a step, and by how much memory grew with it."""
    before = _memory_mib()
    trainer = make()
    next(iter(trainer.steps()))  # weights are read from their file when they are first asked for
    return trainer, round(_memory_mib() - before)


def _memory_mib() -> float:
    import psutil

    ctypes.CDLL(None).malloc_trim(0)  # what was freed does not count
    return psutil.Process().memory_info().rss / 2**20


if __name__ == "__main__":
    print(json.dumps(asked()))
