"""`python -m lora_pipeline.stages.fit RUN/job.json`: trains, and says a line of JSON a report on its standard output.

It stops at SIGTERM, at SIGINT and when its standard input ends (the process that started it is gone): after the step it is in, with
its state saved. Exit status: 0 finished, 1 an error, 143 stopped. Where `accelerate launch` starts several of it, the leader speaks
for all, but for an error that another one meets; and what stops one stops all.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType

from lora_pipeline.errors import PipelineError, TrainingError
from lora_pipeline.families import best_device
from lora_pipeline.stages.fit.group import joined
from lora_pipeline.stages.fit.job import Job, epochs_in
from lora_pipeline.stages.fit.process import STOPPED, STOPS_WITHIN_S
from lora_pipeline.stages.fit.reports import to_line
from lora_pipeline.stages.fit.run import error_line, run


def main(job_file: Path) -> int:
    """Run one job; the exit status."""
    reports = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # what libraries print is no report
    stop = threading.Event()

    def ask(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)
    threading.Thread(target=_until_alone, args=(stop,), daemon=True).start()
    job = Job.read(job_file)
    try:
        group = joined(job.settings, best_device())
        with _alone(job.run) if group.leads else nullcontext():
            for report in run(job, stop.is_set, group=group):
                print(to_line(report), file=reports, flush=True)
            finished = not group.leads or len(epochs_in(job.epochs_file)) == job.settings.epochs
    except PipelineError as error:
        print(error_line(error), file=reports, flush=True)
        return 1
    if finished:
        return 0
    words = "training was stopped from outside; its state is saved, and the next run continues it"
    print(error_line(TrainingError(words)), file=reports, flush=True)
    return STOPPED


def _until_alone(stop: threading.Event) -> None:
    """Wait for the end of standard input, ask the run to stop, and end it if it does not."""
    while os.read(0, 1):  # not sys.stdin, whose lock would be held when the interpreter ends
        continue
    stop.set()
    time.sleep(STOPS_WITHIN_S)
    os._exit(STOPPED)


@contextmanager
def _alone(folder: Path) -> Generator[None]:
    """Hold the run's folder, waiting a little for a process that is about to stop. Raises TrainingError if another keeps it."""
    import fcntl

    with (folder / "lock").open("w") as handle:
        for _ in range(int(STOPS_WITHIN_S) * 2):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(1)
        else:
            raise TrainingError(f"another process trains this run already ({folder}); wait for it, or end it")
        yield


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
