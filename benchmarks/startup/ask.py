"""How long do the terminal's help and the definitions take to load? (Wanted: under 0.5 s and at most 3 s.)"""

import statistics
import subprocess
import sys
import time


def ask() -> dict[str, object]:
    """Medians of five, in seconds, of whole processes."""
    commands = {
        "python that does nothing": [sys.executable, "-c", "pass"],
        "lora-pipeline --help": [sys.executable, "-m", "lora_pipeline.cli", "--help"],
        "import lora_pipeline.definitions": [sys.executable, "-c", "import lora_pipeline.definitions"],
    }
    return {
        "seconds": {
            name: round(statistics.median(_time(command) for _ in range(5)), 2) for name, command in commands.items()
        }
    }


def _time(command: list[str]) -> float:
    begun = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    return time.monotonic() - begun
