"""A finished run, trained again in another folder: the same job, from its first step."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from lora_pipeline.errors import TrainingError
from lora_pipeline.manifest import Manifest, write
from lora_pipeline.progress import Progress, silent
from lora_pipeline.settings import BaseSettings, FitSettings
from lora_pipeline.stages.fit.held_out import balanced_again
from lora_pipeline.stages.fit.job import Job
from lora_pipeline.stages.fit.order import total_steps
from lora_pipeline.stages.fit.process import in_own_process
from lora_pipeline.stages.fit.reports import StepReport
from lora_pipeline.store import digest_file


def set_up_again(key: str, told: Mapping[str, Any], trained_on: str, learnt: Manifest, run: Path) -> Job:
    """A job whose own folder is gone, set up in another from what was written down elsewhere.

    Whether it is the same run, its key says: see `fit.run_key`.

    Args:
        key, trained_on: as in `Job`.
        told: `settings` and `base`, as a `job.json` has them.
        learnt: of the training set as it stands, the rows that were trained on.
        run: an empty folder.
    """
    settings = FitSettings.model_validate(told["settings"])
    if settings.held_out_share:
        learnt = replace(learnt, rows=balanced_again(learnt.rows))
    write(run, learnt.rows, "trained_on")
    return Job(key, run, learnt.folder, trained_on, settings, BaseSettings.model_validate(told["base"]), prompt="")


def missing(job: Job) -> list[str]:
    """Which files of a run's training set are no longer what was trained on: `IMG_1.jpg@close: its latents are gone`. Empty if all are."""
    told: list[str] = []
    for row in job.examples.kept:
        for role, file in row.files.items():
            path = job.training_set / file.path
            if not path.is_file():
                told.append(f"{row.id}: its {role} are gone ({path})")
            elif digest_file(path) != file.digest:
                told.append(f"{row.id}: its {role} have changed since ({path})")
    return told


def train_again(job: Job, epoch: int, scratch: Path, progress: Progress = silent, threads: int = 0) -> Path:
    """Train a run from its beginning up to an epoch, in a process of its own, and give that epoch's LoRA file.

    No sample is drawn and no held-out loss is measured: neither changes a weight.

    Args:
        job: as it stands in the run's folder, which is left alone.
        epoch: the last one that is trained; the learning rate goes as in the whole run.
        scratch: an empty folder.
        progress: told each step.
        threads: that the run had on the CPU; 0 if that is not known.

    Raises:
        TrainingError, OutOfMemory, ModelError: as `fit`.
    """
    same = replace(job, run=scratch, prompt="")
    write(scratch, job.examples.kept, "trained_on")
    steps = total_steps(job.examples, job.settings) // job.settings.epochs * epoch
    threads = threads or job.settings.num_cpu_threads_per_process
    with closing(in_own_process(same.write(), job.settings.num_processes, threads=threads)) as reports:
        for report in reports:
            if isinstance(report, StepReport):
                progress("training again", report.step, steps)
            elif report.epoch == epoch:
                return scratch / report.file
    raise TrainingError(f"training again ended before epoch {epoch}")
