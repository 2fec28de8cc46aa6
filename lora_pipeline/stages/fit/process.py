"""Training in a process of its own: its memory, its GPU context and its threads are gone when it ends, however it ends."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Generator
from pathlib import Path

import lora_pipeline
from lora_pipeline.errors import TrainingError
from lora_pipeline.stages.fit.reports import TrainingReport, of_line

STOPPED = 143
STOPS_WITHIN_S = 10.0
_STDERR_LINES = 30


def in_own_process(job_file: Path) -> Generator[TrainingReport, None, None]:
    """Run a job in a new process and give its reports as they come.

    When the generator is closed, or an interrupt comes while it waits, the process is asked to stop (it saves its state
    after the step it is in), and killed if it has not within 10 s. It also stops by itself when this process dies.

    Raises:
        TrainingError: the process failed; its own words, or the end of what it wrote to its standard error.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "lora_pipeline.stages.fit", str(job_file)],
        stdin=subprocess.PIPE,  # never written to: its end tells the process that this one is gone
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        env=environment(),
    )
    assert process.stdout is not None
    assert process.stderr is not None
    last_words: deque[str] = deque(maxlen=_STDERR_LINES)
    listener = threading.Thread(target=last_words.extend, args=(process.stderr,), daemon=True)
    listener.start()
    error = ""
    try:
        for line in process.stdout:
            if line.startswith('{"error"'):
                error = json.loads(line)["error"]
            else:
                yield of_line(line)
        status = process.wait()
        listener.join(timeout=STOPS_WITHIN_S)
        if error:
            raise TrainingError(error)
        if status:
            raise TrainingError(_why(status, list(last_words)))
    finally:
        _end(process)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def environment() -> dict[str, str]:
    """Variables of a process that trains: those of this one, and what must be said before it begins."""
    return {
        # glibc gives freed memory back to the system and asks for it again at every operation of every step, each page of it zeroed
        # anew. Kept, a step of the bundled model computes a tenth less on a CPU, to the same bits. 32 MiB is the most that it takes.
        "MALLOC_MMAP_THRESHOLD_": str(2**25),
        "MALLOC_TRIM_THRESHOLD_": str(2**40),
        **os.environ,
        "PYTHONPATH": os.pathsep.join(
            filter(None, (str(Path(lora_pipeline.__file__).parents[1]), os.environ.get("PYTHONPATH")))
        ),
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # cuBLAS repeats its sums only with this
    }


def _end(process: "subprocess.Popen[str]") -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(timeout=STOPS_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _why(status: int, last_words: list[str]) -> str:
    if status == STOPPED:
        return "training was stopped from outside; its state is saved, and the next run continues it"
    if status == -signal.SIGKILL:
        return "the training process was killed, most likely since memory ran out; the next run continues from its last saved state"
    told = "".join(last_words).strip()
    return f"the training process ended with status {status}; the next run continues from its last saved state. It said:\n{told}"
