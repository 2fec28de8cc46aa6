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
from lora_pipeline.errors import OutOfMemory, TrainingError
from lora_pipeline.stages.fit.reports import StepReport, TrainingReport, of_line

TRAINS = "lora_pipeline.stages.fit"
STOPPED = 143
STOPS_WITHIN_S = 10.0
_STDERR_LINES = 30


def in_own_process(job_file: Path, module: str = TRAINS) -> Generator[TrainingReport, None, None]:
    """Run a job in a new process and give its reports as they come.

    The module is what the process runs: training, or the measuring of a forecast.

    When the generator is closed, or an interrupt comes while it waits, the process is asked to stop (it saves its state
    after the step it is in), and killed if it has not within 10 s and twice its longest step. It also stops by itself when this process dies.

    Raises:
        OutOfMemory: the process ran out of memory, and said so.
        TrainingError: it failed otherwise; its own words, or the end of what it wrote to its standard error.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(
            filter(None, (str(Path(lora_pipeline.__file__).parents[1]), os.environ.get("PYTHONPATH")))
        ),
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # cuBLAS repeats its sums only with this
    }
    process = subprocess.Popen(
        [sys.executable, "-m", module, str(job_file)],
        stdin=subprocess.PIPE,  # never written to: its end tells the process that this one is gone
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        env=environment,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    last_words: deque[str] = deque(maxlen=_STDERR_LINES)
    listener = threading.Thread(target=last_words.extend, args=(process.stderr,), daemon=True)
    listener.start()
    error: TrainingError | None = None
    longest_step_s = 0.0
    try:
        for line in process.stdout:
            if line.startswith('{"error"'):
                told = json.loads(line)
                error = (OutOfMemory if told["out_of_memory"] else TrainingError)(told["error"])
            else:
                report = of_line(line)
                if isinstance(report, StepReport):
                    longest_step_s = max(longest_step_s, report.seconds)
                yield report
        status = process.wait()
        listener.join(timeout=STOPS_WITHIN_S)
        if error is not None:
            raise error
        if status:
            raise TrainingError(
                _why(status, list(last_words)) if module == TRAINS else _why_not_measured(status, list(last_words))
            )
    finally:
        _end(process, STOPS_WITHIN_S + 2 * longest_step_s)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def _end(process: "subprocess.Popen[str]", within_s: float) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(timeout=within_s)
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


def _why_not_measured(status: int, last_words: list[str]) -> str:
    if status == -signal.SIGKILL:
        return (
            "memory most likely does not suffice: the process that tried a step for the forecast was killed; "
            "lower fit.batch_size, switch fit.gradient_checkpointing on, lower encode.resolution_px, or take a smaller base model"
        )
    told = "".join(last_words).strip()
    return f"the process that tried a step for the forecast ended with status {status}. It said:\n{told}"
