"""A training set and a recipe → a LoRA file an epoch. A run is one item with one key: reused, continued, or begun."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from lora_pipeline.errors import OutOfMemory, TrainingError
from lora_pipeline.families import family
from lora_pipeline.manifest import Manifest, Outcome, Report, Stale, is_planning, key_of, read, write
from lora_pipeline.progress import Progress, silent
from lora_pipeline.records import Checkpoint, File, Row
from lora_pipeline.settings import BaseSettings, FitSettings
from lora_pipeline.stages.fit.adapter import targets_of, text_targets_of
from lora_pipeline.stages.fit.captions import varies
from lora_pipeline.stages.fit.held_out import without_held_out
from lora_pipeline.stages.fit.job import Job, epochs_in
from lora_pipeline.stages.fit.memory import CHANGED, at, with_less
from lora_pipeline.stages.fit.order import total_steps
from lora_pipeline.stages.fit.plot import plot_losses
from lora_pipeline.stages.fit.process import in_own_process
from lora_pipeline.stages.fit.reports import EpochReport, StepReport
from lora_pipeline.store import write_text

CODE_VERSION = "1"
OnEpoch = Callable[[Row, EpochReport], object]
# Settings that change no weight, held_out_share but by the photos that it leaves out.
_NOT_LEARNT = {
    "blocks_to_swap",
    "held_out_share",
    "retry_with_less_memory",
    "sample_prompt",
    "state_every_minutes",
    "state_every_steps",
}
# Settings that runs were trained without: at their defaults those are the same runs, and keep their keys.
_CAME_LATER = (
    "network_factor",
    "base_precision",
    "num_processes",
    "num_cpu_threads_per_process",
    "text_encoder_lr",
    "text_encoder_2_lr",
    "face_loss_weight",
)


def to_nobody(row: Row, report: EpochReport) -> None:
    """Hear of an epoch and do nothing."""


def fit(
    training_set: Manifest,
    folder: Path,
    settings: FitSettings,
    base: BaseSettings,
    prompt: str,
    on_epoch: OnEpoch = to_nobody,
    progress: Progress = silent,
    guidance_scale: float = Job.guidance_scale,
) -> Outcome:
    """Reuse the finished run of this training set, these settings and this base; else continue or begin it, in a process of its own.

    Runs lie in `folder/runs/<first 16 digits of the key>/`: `epoch-0001.safetensors` …, `samples/epoch-0001.png` …, `steps.jsonl`,
    `epochs.jsonl`, `loss.png`, `tensorboard/`, `job.json`, `trained_on.parquet` (which photos, and which were kept aside),
    `made_with.json` (libraries, device and threads of the process that trained last), and until it is finished `state/`. Runs of other keys
    are left alone.

    A run that runs out of memory is told of by an OutOfMemory; or, where `settings` allow it, the run of the same training in less memory
    (`memory.with_less`) stands in its place, now and when this is called again: with a key, a job and checkpoints of its own. `as_trained`
    tells which settings those are. The run that did not fit keeps an `out_of_memory.txt`; without that file it is tried again.

    Args:
        training_set: rows of `Example` with the files `latents` and `text`.
        folder: the stage's.
        settings: of the training.
        base: what is trained on.
        prompt: of the sample picture of each epoch, filled in; empty is none. It changes no weight, so a finished run keeps its samples.
        on_epoch: told each epoch when it ends: its row, as it will stand in the manifest, and its report.
        progress: told each step.
        guidance_scale: of the sample pictures; as with the prompt, a finished run keeps its samples.

    Returns:
        A row an epoch (ids `0001` …): `Checkpoint`, with the files `lora` and, if there was a prompt, `sample`. Computed and
        reused count epochs.

    Raises:
        TrainingError: nothing to train on, settings that the family cannot follow, a loss that is not finite, or the training process was killed.
        OutOfMemory: memory does not suffice, and the settings do not let it be tried with less, or less did not do either.
        ModelError: the base model's weights are missing or gated.
    """
    job, learnt = planned(training_set, folder, settings, base, prompt)
    there = len(epochs_in(job.epochs_file))
    seconds = 0.0
    if there < settings.epochs and is_planning():
        missing = range(there + 1, settings.epochs + 1)
        raise Stale({f"{epoch:04d}": "not trained" for epoch in missing}, (), settings.epochs)
    if there < settings.epochs:
        total = total_steps(training_set, job.settings)
        job.run.mkdir(parents=True, exist_ok=True)
        write(job.run, learnt.rows, "trained_on")
        what = "training" if job.settings == settings else f"training in less memory, at {at(job.settings)}"
        try:
            with closing(
                in_own_process(
                    replace(job, guidance_scale=guidance_scale).write(),
                    job.settings.num_processes,
                    threads=job.settings.num_cpu_threads_per_process,
                )
            ) as reports:
                for report in reports:
                    if isinstance(report, StepReport):
                        seconds += report.seconds
                        progress(what, report.step, total)
                    else:
                        on_epoch(_row(job, report, folder), report)
        except OutOfMemory as error:
            if job.settings != settings or not settings.retry_with_less_memory or with_less(settings) is None:
                raise
            write_text(job.out_of_memory, f"{error}\n")
            return fit(training_set, folder, settings, base, prompt, on_epoch, progress, guidance_scale)
    epochs = epochs_in(job.epochs_file)
    if len(epochs) < settings.epochs:
        raise TrainingError(
            f"training ended after {len(epochs)} of {settings.epochs} epochs without a word; run it again to continue"
        )
    rows = tuple(_row(job, epoch, folder) for epoch in epochs)
    before = {row.id: row for row in read(folder).rows}
    if rows != tuple(before.values()):
        if is_planning():
            others = [row.id for row in rows if before.get(row.id) != row]
            gone = sorted(before.keys() - {row.id for row in rows})
            raise Stale(dict.fromkeys(others, "trained already, but another run's stand there"), gone, len(rows))
        write(folder, rows)
    checkpoints = Manifest(folder, rows)
    if not is_planning() and (there < settings.epochs or not (job.run / "loss.png").exists()):
        plot_losses(checkpoints)
    return Outcome(checkpoints, Report(computed=settings.epochs - there, reused=there, seconds=seconds))


def as_trained(settings: FitSettings, checkpoints: Manifest) -> FitSettings:
    """The settings, with the batch and the checkpointing that the checkpoints were really trained with: `fit` may have saved memory.

    Args:
        settings: as they were asked for.
        checkpoints: what `fit` gave; where there are none, or their run's job has gone, the settings come back as they are.
    """
    jobs = {checkpoints.path(row, "lora").parent / "job.json" for row in checkpoints.kept}
    trained = [Job.read(file).settings for file in jobs if file.exists()]
    return settings.model_copy(update={name: getattr(trained[0], name) for name in CHANGED}) if trained else settings


def planned(
    training_set: Manifest, folder: Path, settings: FitSettings, base: BaseSettings, prompt: str
) -> tuple[Job, Manifest]:
    """The run that `fit` would reuse, continue or begin, and its training set less what is kept aside. Arguments as `fit`.

    Where memory did not suffice, and the settings let it be tried with less, it is the run with less.

    Raises:
        TrainingError: nothing to train on, or settings that the family cannot follow.
        ModelError: the base model's weights are missing or gated.
    """
    if not training_set.kept:
        raise TrainingError("there is nothing to train on: no picture of the training set was kept; its rows say why")
    base_family = family(base.family)
    base_family.check(base)
    targets_of(base_family, settings)
    text_targets_of(base_family, settings)
    learnt = without_held_out(training_set, settings)
    job = _job(learnt, folder, settings, base, prompt)
    less = with_less(settings) if settings.retry_with_less_memory else None
    if less is not None and job.out_of_memory.exists():
        job = _job(learnt, folder, less, base, prompt)
    return job, learnt


def _job(training_set: Manifest, folder: Path, settings: FitSettings, base: BaseSettings, prompt: str) -> Job:
    key = run_key(training_set, settings, base)
    return Job(key, folder / "runs" / key[:16], training_set.folder, training_set.digest, settings, base, prompt)


def run_key(training_set: Manifest, settings: FitSettings, base: BaseSettings) -> str:
    """Hash of all that the weights hang on. Of the training set, only what is kept counts. Raises ModelError: the base's weights are missing."""
    # What is learnt, and no more: a photo that was refused, or a prompt that is only drawn, does not void sixteen hours of work.
    learnt = [
        (
            row.id,
            row.data["repeats"],
            row.data.get("loss_weight", 1.0),
            [row.files[role].digest for role in ("latents", "text")],
        )
        for row in training_set.kept
    ]
    settings_told = settings.model_dump(mode="json", exclude=_NOT_LEARNT)
    for name in _CAME_LATER:
        if settings_told[name] == FitSettings.model_fields[name].default:
            del settings_told[name]
    base_family = family(base.family)
    parts: list[object] = [base_family.digest(base, "denoiser")]
    if varies(settings) or settings.learns_texts:
        # then the run encodes words itself, of which the cached embeddings say nothing
        parts += [base_family.digest(base, "texts"), *(str(row.data["caption"]) for row in training_set.kept)]
    if settings.face_loss_weight != 1:
        parts += [row.data.get("face") for row in training_set.kept]
    return key_of(learnt, settings_told, base.family, parts, CODE_VERSION)


def _row(job: Job, epoch: EpochReport, folder: Path) -> Row:
    checkpoint = Checkpoint(
        epoch=epoch.epoch,
        run=job.key,
        trained_on=Job.read(job.run / "job.json").trained_on,
        loss=epoch.loss,
        learning_rate=epoch.learning_rate,
        images_seen=epoch.images_seen,
    )
    files = {
        role: File((job.run / path).relative_to(folder).as_posix(), epoch.digests[path])
        for role, path in (("lora", epoch.file), ("sample", epoch.sample))
        if path
    }
    return Row(f"{epoch.epoch:04d}", key_of(job.key, epoch.epoch), data=checkpoint.data(), files=files)
