"""`python -m benchmarks [--peers FOLDER] [--choice FOLDER] [--photos N] [QUESTION …]`: measure again, and write each answer beside its question."""

import argparse
import json
import os
import platform
import subprocess
import time
from importlib import import_module, metadata
from pathlib import Path

HERE = Path(__file__).parent
QUESTIONS = (
    "card",
    "choice",
    "compiled",
    "copies",
    "executor",
    "group_offload",
    "growth",
    "loss_mask",
    "peers",
    "photos",
    "prepack",
    "startup",
    "step",
    "threads",
    "winograd",
)
PACKAGES = ("dagster", "torch", "diffusers", "peft", "transformers", "accelerate", "pillow")


def circumstances() -> dict[str, object]:
    """What a number depends on besides the code."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE, check=False
    ).stdout.strip()
    versions = {name: metadata.version(name) for name in PACKAGES}
    return {
        "commit": commit,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "device": _device(),
        "versions": versions,
        "on": time.strftime("%Y-%m-%d"),
    }


def _device() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


def main() -> None:
    """Ask each question and write its result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("questions", nargs="*", metavar="QUESTION", help=f"of: {', '.join(QUESTIONS)}; all by default")
    parser.add_argument("--peers", type=Path, help="folder in which the other trainers are checked out, or will be")
    parser.add_argument("--choice", type=Path, help="folder in which the runs of choice lie, and go on")
    parser.add_argument(
        "--photos", type=int, default=2000, help="how many photos, and five times as many small ones (2 or more)"
    )
    asked = parser.parse_args()
    for question in asked.questions:
        if question not in QUESTIONS:
            parser.error(f"there is no question '{question}'; there are: {', '.join(QUESTIONS)}")
    for question in asked.questions or QUESTIONS:
        print(question)
        given = {
            "peers": {"peers": asked.peers},
            "choice": {"folder": asked.choice},
            "photos": {"photos": asked.photos},
        }.get(question, {})
        answer = import_module(f"benchmarks.{question}.ask").ask(**given)
        if answer is None:  # it cannot be asked here, and has said why
            continue
        text = json.dumps({**circumstances(), **answer}, indent=1)
        (HERE / question / "result.json").write_text(text + "\n", encoding="utf-8")
        print(text)


if __name__ == "__main__":
    main()
