"""Training in a process of its own, or in several: its memory, its GPU context and its threads are gone when it ends, however it ends."""

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
_STDERR_LINES = 30  # of each process, and of a launcher twice as many


def in_own_process(
    job_file: Path, processes: int = 1, module: str = TRAINS, threads: int = 0
) -> Generator[TrainingReport, None, None]:
    """Run a job in a new process and give its reports as they come.

    When the generator is closed, or an interrupt comes while it waits, the process is asked to stop (it saves its state
    after the step it is in), and killed if it has not within 10 s and twice its longest step. It also stops by itself when this process dies.

    Several processes are children of `accelerate launch`, which hands on what it is asked and ends all when one has failed. Where its
    configuration tells of more machines, it starts this machine's share and waits for the others'.

    Args:
        job_file: the job's `job.json`.
        processes: the job's `num_processes`.
        module: what each process runs: training, or the measuring of a forecast.
        threads: of each process on the CPU: sums of float32 come out by another last bit with another number of them. 0 is what torch thinks good.

    Raises:
        OutOfMemory: the process ran out of memory, and said so.
        TrainingError: a process failed otherwise; its own words, or the end of what it wrote to its standard error.
    """
    process = subprocess.Popen(
        [sys.executable, *_launcher(processes), "-m", module, str(job_file)],
        stdin=subprocess.PIPE,  # never written to: its end tells the process that this one is gone
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        env=environment(processes) | ({"OMP_NUM_THREADS": str(threads)} if threads else {}),
    )
    assert process.stdout is not None
    assert process.stderr is not None
    last_words: deque[str] = deque(maxlen=_STDERR_LINES if processes == 1 else _STDERR_LINES * (processes + 2))
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


def _launcher(processes: int) -> list[str]:
    if processes == 1:
        return []
    # --multi_gpu is torch's own launcher, which starts processes on the CPU as well; --cpu would ask for MPI
    return ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes)]


def environment(processes: int = 1) -> dict[str, str]:
    """Variables of one of so many processes that train: those of this one, and what must be said before it begins."""
    told = {
        # glibc gives freed memory back to the system and asks for it again at every operation of every step, each page of it zeroed
        # anew. Kept, the same bits come without those faults (163,549 in a trial of the bundled model, and none). 32 MiB is the most that glibc takes here.
        "MALLOC_MMAP_THRESHOLD_": str(2**25),
        "MALLOC_TRIM_THRESHOLD_": str(2**40),
        # libgomp's own number: who trains has its cores for itself most often, and threads that spin before they sleep take 2.5 s for a step of
        # SD 1.5's shape in place of 2.8, beside another busy program 8.4 in place of 4.9 (benchmarks/threads). All else of ours sleeps at once.
        "GOMP_SPINCOUNT": "300000",
        **os.environ,
        "PYTHONPATH": os.pathsep.join(
            filter(None, (str(Path(lora_pipeline.__file__).parents[1]), os.environ.get("PYTHONPATH")))
        ),
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # cuBLAS repeats its sums only with this
    }
    if processes > 1:  # a process alone takes as many threads as torch thinks good
        told.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    return told


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
    told = "".join(last_words).strip()
    first_to_fail = told.rpartition("Root Cause")[2]  # torch's launcher ends with it
    if status == -signal.SIGKILL or "(SIGKILL)" in first_to_fail:
        return "the training process was killed, most likely since memory ran out; the next run continues from its last saved state"
    return f"the training process ended with status {status}; the next run continues from its last saved state. It said:\n{told}"


def _why_not_measured(status: int, last_words: list[str]) -> str:
    if status == -signal.SIGKILL:
        return (
            "memory most likely does not suffice: the process that tried a step for the forecast was killed; "
            "lower fit.batch_size, switch fit.gradient_checkpointing on, lower encode.resolution_px, or take a smaller base model"
        )
    told = "".join(last_words).strip()
    return f"the process that tried a step for the forecast ended with status {status}. It said:\n{told}"
