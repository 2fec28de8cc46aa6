"""`python -m benchmarks [QUESTION …]`: measure again, and write each answer beside its question."""

import json
import platform
import subprocess
import sys
import time
from importlib import import_module, metadata
from pathlib import Path

HERE = Path(__file__).parent
QUESTIONS = ("copies", "executor", "startup")


def circumstances() -> dict[str, object]:
    """What a number depends on besides the code."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE, check=False
    ).stdout.strip()
    versions = {name: metadata.version(name) for name in ("dagster", "torch", "diffusers", "pillow")}
    return {
        "commit": commit,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": versions,
        "on": time.strftime("%Y-%m-%d"),
    }


def main() -> None:
    """Ask each question and write its result."""
    for question in sys.argv[1:] or QUESTIONS:
        print(question)
        answer = import_module(f"benchmarks.{question}.ask").ask()
        text = json.dumps({**circumstances(), **answer}, indent=1)
        (HERE / question / "result.json").write_text(text + "\n", encoding="utf-8")
        print(text)


if __name__ == "__main__":
    main()
