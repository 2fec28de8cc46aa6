"""`python -m lora_pipeline.stages.fit.measure FOLDER/job.json`: what a step of this job takes here, written to `FOLDER/measured.json`.

The job is not trained: its folder is thrown away afterwards, and with it what these steps learnt. In a process of its own, as training is,
so that what is measured of memory is what training will take.
"""

import json
import os
import statistics
import sys
import threading
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lora_pipeline.errors import PipelineError, TrainingError
from lora_pipeline.families import best_device, family
from lora_pipeline.stages.fit.costs import MEASURED, Measured
from lora_pipeline.stages.fit.job import Job
from lora_pipeline.stages.fit.memory import named
from lora_pipeline.stages.fit.order import Look
from lora_pipeline.stages.fit.reports import StepReport, to_line
from lora_pipeline.stages.fit.run import Sampler, error_line, finish_epoch, repeatable
from lora_pipeline.stages.fit.trainer import Trainer, most_memory_mib, read_cached
from lora_pipeline.store import write_text

TIMED_STEPS, TIMED_S = 2, 0.5  # at least so many steps, and for so long


def measure(job: Job, device: str = "") -> Measured:
    """Time steps of one picture and of the real batch, and the end of an epoch; the first of each kind warms up and is not counted.

    The real batch is tried only if memory will suffice, as far as a step of one picture tells.

    Args:
        job: in a folder that may be written to.
        device: empty for the best there is.

    Raises:
        TrainingError: as `run`, or memory does not suffice to draw a sample.
        OutOfMemory: nor for one picture.
        ModelError: the base model cannot be opened.
    """
    device = device or best_device()
    repeatable(device)
    free_mib = free_memory_mib(device)
    base_family, settings = family(job.base.family), job.settings
    examples = read_cached(job.examples)
    held_out = read_cached(job.held_out) if job.held_out.kept else []
    largest = max((one.example.bucket for one in examples), key=lambda size: size[0] * size[1])
    pictures = [number for number, one in enumerate(examples) if one.example.bucket == largest]

    def looks(count: int) -> tuple[Look, ...]:
        return tuple(Look(pictures[number % len(pictures)], mirrored=False) for number in range(count))

    with named(settings.model_copy(update={"batch_size": 1})):
        trainer = Trainer(examples, base_family, job.base, settings, device, held_out)
        opening_mib = most_memory_mib(device)
        _forget_most(device)
        seconds_one, step = _timed(trainer, looks(1))
    texts_mib = sum(_frozen_mib(encoder) for encoder in trainer.encoders.values())
    lora = sum(one.numel() * one.element_size() for one in trainer.parameters.values())
    one_mib, resident_mib = most_memory_mib(device), _memory_mib(device)
    measured = Measured(
        device=_in_words(device),
        batch_size=1,
        area_px=largest[0] * largest[1],
        seconds_one=seconds_one,
        seconds_batch=seconds_one,
        epoch_end_s=0.0,
        free_mib=free_mib,
        weights_mib=_frozen_mib(trainer.module) + texts_mib,
        lora_mib=lora / 2**20,
        resident_mib=resident_mib,
        one_mib=one_mib,
        batch_mib=one_mib,
        most_mib=max(one_mib, opening_mib),
        texts_mib=texts_mib,
    )
    if settings.batch_size > 1 and measured.fits(settings.batch_size):
        measured = _with_the_real_batch(measured, trainer, looks(settings.batch_size))
    if not measured.fits(settings.batch_size):
        return _checkpointed(measured, trainer, looks(1))
    return _with_an_epochs_end(measured, job, trainer, step, looks(settings.batch_size))


def _frozen_mib(module: Any) -> float:
    """Of what is not trained in a module."""
    return sum(one.numel() * one.element_size() for one in module.parameters() if not one.requires_grad) / 2**20


def _timed(trainer: Trainer, looks: tuple[Look, ...]) -> tuple[float, StepReport]:
    """Seconds of a step, and the last of them."""
    report = trainer.step_on(looks)
    seconds: list[float] = []
    while len(seconds) < TIMED_STEPS or sum(seconds) < TIMED_S:
        report = trainer.step_on(looks)
        seconds.append(report.seconds)
    return statistics.median(seconds), report


def _with_the_real_batch(measured: Measured, trainer: Trainer, looks: tuple[Look, ...]) -> Measured:
    import torch

    try:
        seconds, _ = _timed(trainer, looks)
    except torch.OutOfMemoryError:
        return replace(measured, too_many=len(looks))
    most = most_memory_mib(trainer.device)
    return replace(
        measured,
        batch_size=len(looks),
        seconds_batch=seconds,
        batch_mib=most,
        most_mib=max(measured.most_mib, most),
    )


def _checkpointed(measured: Measured, trainer: Trainer, looks: tuple[Look, ...]) -> Measured:
    """What a step of one picture takes with gradient checkpointing, for a run that does not fit without."""
    if trainer.settings.gradient_checkpointing:
        return measured
    trainer.optimizer.zero_grad(set_to_none=True)
    trainer.checkpoint()
    _forget_most(trainer.device)
    trainer.step_on(looks)
    return replace(measured, checkpointed_mib=most_memory_mib(trainer.device))


def _with_an_epochs_end(
    measured: Measured, job: Job, trainer: Trainer, step: StepReport, looks: tuple[Look, ...]
) -> Measured:
    import torch

    sampler = Sampler(job, trainer.family, trainer, trainer.device)
    write_text(job.steps_file, to_line(replace(step, epoch=1)) + "\n")
    trainer.step = trainer.steps_per_epoch  # as if the first epoch had just ended
    try:
        seconds = finish_epoch(job, trainer.family, trainer, sampler).seconds
        trainer.step_on(looks)
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"the graphics card's {measured.free_mib:,.0f} MiB suffice to train, but not to draw a sample beside it: "
            f"empty fit.sample_prompt, or lower fit.batch_size ({str(error).splitlines()[0]})"
        ) from error
    return replace(
        measured,
        epoch_end_s=seconds,
        most_mib=max(measured.most_mib, most_memory_mib(trainer.device)),
    )


def free_memory_mib(device: str) -> float:
    """What this process may take in all: what is free, and on a CPU what it has already."""
    if device == "cuda":
        import torch

        return torch.cuda.mem_get_info()[0] / 2**20
    import psutil

    return psutil.virtual_memory().available / 2**20 + _memory_mib(device)


def _memory_mib(device: str) -> float:
    """What is taken now."""
    if device == "cuda":
        import torch

        return torch.cuda.memory_allocated() / 2**20
    import ctypes

    import psutil

    with suppress(OSError, AttributeError):  # glibc keeps what was freed, which would pass for taken
        ctypes.CDLL(None).malloc_trim(0)
    return psutil.Process().memory_info().rss / 2**20


def _forget_most(device: str) -> None:
    """Let `most_memory_mib` count from now: the base model took more while it was opened than any step may."""
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
        return
    _memory_mib(device)
    with suppress(OSError):  # Linux alone can; elsewhere a step that takes less than the opening is not seen
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _in_words(device: str) -> str:
    import torch

    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{device}, {torch.get_num_threads()} threads"


def main(job_file: Path) -> int:
    """Measure one job; the exit status. Says its error as training does, and ends when the process that started it has gone."""
    threading.Thread(target=_until_alone, daemon=True).start()
    told: Any = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # what libraries print is no report
    try:
        measured = measure(Job.read(job_file))
    except PipelineError as error:
        print(error_line(error), file=told, flush=True)
        return 1
    write_text(job_file.parent / MEASURED, json.dumps(asdict(measured), indent=2) + "\n")
    return 0


def _until_alone() -> None:
    while os.read(0, 1):
        continue
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
