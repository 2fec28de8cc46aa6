"""Before the night: how many steps, how long, at what cost, in how much memory; and afterwards, how near that came.

A run's forecast lies beside it, in `runs/<key>/forecast.json`. It is made from an earlier run that cost the same a step, if there is one, as that
turned out; else from a few steps that are tried (`measure.py`).
"""

import json
import os
import socket
import tempfile
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lora_pipeline.families import family
from lora_pipeline.manifest import Manifest, key_of, write
from lora_pipeline.records import Example
from lora_pipeline.settings import BaseSettings, FitSettings, ForecastSettings
from lora_pipeline.stages.fit.costs import MEASURED, Measured, epoch_seconds, remedies
from lora_pipeline.stages.fit.fit import planned
from lora_pipeline.stages.fit.held_out import held_out
from lora_pipeline.stages.fit.job import Job, epochs_told_in, steps_in
from lora_pipeline.stages.fit.memory import with_less
from lora_pipeline.stages.fit.order import batches_per_step, looks_per_bucket, steps_per_epoch
from lora_pipeline.stages.fit.process import in_own_process
from lora_pipeline.store import write_text

FORECAST = "forecast.json"
_CODE_VERSION = "1"
# Settings that change neither a step's time nor its memory.
_COST_NOTHING = {
    "seed",
    "epochs",
    "gradient_accumulation_steps",  # a step's batches come one after the other
    "num_processes",
    "face_loss_weight",
    "held_out_share",  # the pictures that it keeps aside are counted
    "network_alpha",
    "network_conv_alpha",
    "rank_stabilised",
    "unet_lr",
    "lr_scheduler",
    "lr_scheduler_num_cycles",
    "lr_scheduler_power",
    "lr_warmup_steps",
    "weight_decay",
    "max_grad_norm",
    "state_every_steps",
    "state_every_minutes",
    "sample_prompt",  # whether there is one is told
    "text_encoder_lr",  # which are trained is told
    "text_encoder_2_lr",
}


@dataclass(frozen=True)
class Forecast:
    """What a run takes.

    Args:
        run: its key.
        cost: key of all that a step's time and memory hang on.
        source: where the numbers are from, in words.
        measured: the steps that were tried.
        batch_size: pictures a batch.
        epochs: of the run.
        steps: of the whole run.
        seconds_per_step: mean, the short batches included.
        seconds: of all steps and all epochs' ends. The model's opening is not among them.
        memory_mib: the most, of the graphics card, or on a CPU of the process.
        steps_done: of the run, before it was interrupted.
    """

    run: str
    cost: str
    source: str
    measured: Measured
    batch_size: int
    epochs: int
    steps: int
    seconds_per_step: float
    seconds: float
    memory_mib: float
    steps_done: int = 0

    @property
    def hours_left(self) -> float:
        """Of what is not trained yet."""
        return self.seconds / 3600 * (1 - self.steps_done / self.steps)

    def kwh(self, rates: ForecastSettings) -> float:
        """Energy of what is not trained yet; 0 if the machine's power is not known."""
        return self.hours_left * rates.watts / 1000

    def cost_of(self, rates: ForecastSettings) -> float:
        """Money for what is not trained yet."""
        return self.hours_left * rates.price_per_hour + self.kwh(rates) * rates.price_per_kwh

    def in_words(self, rates: ForecastSettings) -> str:
        """One line."""
        told = [f"{self.steps:,} steps of {self.seconds_per_step:.3g} s"]
        if self.steps_done:
            told[0] += f", {self.steps - self.steps_done:,} of them left"
        told.append(_span(self.hours_left))
        if rates.watts:
            told.append(f"{self.kwh(rates):.2f} kWh")
        if rates.price_per_hour or rates.price_per_kwh:
            told.append(f"cost {self.cost_of(rates):.2f}")
        told.append(f"memory {self.memory_mib:,.0f} of {self.measured.free_mib:,.0f} MiB")
        return f"{', '.join(told)} ({self.source}; {self.measured.device})"


def forecast(
    training_set: Manifest,
    folder: Path,
    settings: FitSettings,
    base: BaseSettings,
    prompt: str,
    records: Iterable[Path] = (),
) -> Forecast | None:
    """Say what the run takes that `fit` would continue or begin. Arguments as `fit`'s; a few steps are tried only where nothing is known.

    Args:
        records: `forecast.json` of other runs, the one to be preferred first.

    Returns:
        None if the run is finished.

    Raises:
        TrainingError, ModelError: what training would raise before its first step, or in it.
    """
    job, training_set = planned(training_set, folder, settings, base, prompt)
    if _finished(job):
        return None
    cost = cost_key(job, training_set)
    stored = _read(job.run / FORECAST)
    if stored is None or stored.cost != cost or not stored.measured.fits(job.settings.batch_size):
        measured, source = _of_a_record(records, cost) or (_try(job, training_set), "a few steps tried")
        stored = _worked_out(job, training_set, cost, measured, source)
        write_text(job.run / FORECAST, json.dumps(asdict(stored), indent=2) + "\n")
    return replace(stored, steps_done=len(steps_in(job.steps_file)))


def objections(forecast: Forecast, rates: ForecastSettings, settings: FitSettings) -> tuple[str, ...]:
    """Why this run should not begin, each with what would let it; empty if it may."""
    told: list[str] = []
    if rates.max_hours and forecast.hours_left > rates.max_hours:
        told.append(
            f"training would last {_span(forecast.hours_left)}, over forecast.max_hours {rates.max_hours:g}; "
            f"{_fewer_epochs(forecast, rates.max_hours / forecast.hours_left)}"
        )
    cost = forecast.cost_of(rates)
    if rates.max_cost and cost > rates.max_cost:
        told.append(
            f"training would cost {cost:.2f}, over forecast.max_cost {rates.max_cost:g}; "
            f"{_fewer_epochs(forecast, rates.max_cost / cost)}"
        )
    measured = forecast.measured
    less = with_less(settings) if settings.retry_with_less_memory else None
    if not measured.fits(forecast.batch_size) and (less is None or not measured.fits(less.batch_size)):
        would = remedies(measured, settings)
        fits = (
            f"What would make it fit: {'; or '.join(would)}"
            if would
            else f"The base model alone takes {measured.weights_mib:,.0f} MiB: a smaller one would fit, or a lower encode.resolution_px"
        )
        told.append(
            f"memory does not suffice: batches of {forecast.batch_size} would take {forecast.memory_mib:,.0f} MiB, and {measured.free_mib:,.0f} MiB "
            f"are free ({measured.device}). {fits}"
        )
    return tuple(told)


def _fewer_epochs(forecast: Forecast, share: float) -> str:
    if forecast.steps_done:  # another number of epochs is another run, which begins at its first step
        return "a higher limit lets the run go on"
    epochs = int(forecast.epochs * share)
    within = f"fit.epochs: {epochs} would stay within" if epochs else "not even one epoch would stay within"
    return f"{within}, or fewer encode.repeats, or a higher limit"


def _finished(job: Job) -> bool:
    """As far as can be said without reading every file: this is asked at each run."""
    told = epochs_told_in(job.epochs_file)
    return len(told) >= job.settings.epochs and all((job.run / epoch.file).exists() for epoch in told)


def cost_key(job: Job, training_set: Manifest) -> str:
    """Key of all that a step's time and memory hang on: base, settings, picture sizes, device."""
    settings = job.settings.model_dump(mode="json", exclude=_COST_NOTHING)
    # Without torch no device can be asked; a machine has those that it is told to use.
    device = [socket.gethostname(), *(os.environ.get(name, "") for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"))]
    sizes = sorted({Example.of(row).bucket for row in training_set.kept})
    base = job.base.model_dump(mode="json", exclude={"model", "revision", "licence"})
    weights = family(job.base.family).digest(job.base, "whole")
    first, second = (rate > 0 for rate in job.settings.text_encoder_lrs)
    return key_of(
        *(base, weights, settings, sizes, len(held_out(training_set).kept)),
        *(bool(job.prompt), first if first == second else (first, second), device, _CODE_VERSION),
    )


def _try(job: Job, training_set: Manifest) -> Measured:
    with tempfile.TemporaryDirectory(prefix="lora_pipeline") as aside:
        trial = replace(job, run=Path(aside))
        write(trial.run, training_set.rows, "trained_on")
        threads = job.settings.num_cpu_threads_per_process
        measuring = "lora_pipeline.stages.fit.measure"
        with closing(in_own_process(trial.write(), module=measuring, threads=threads)) as reports:
            for _ in reports:
                pass
        return Measured(**json.loads((trial.run / MEASURED).read_text(encoding="utf-8")))


def _of_a_record(records: Iterable[Path], cost: str) -> tuple[Measured, str] | None:
    """What was measured for the first run of that cost which has trained, corrected by how that run turned out."""
    for file in records:
        told = _read(file)
        happened = None if told is None or told.cost != cost else what_happened(file.parent)
        if told is not None and happened is not None:
            slower = happened.seconds_per_step / told.seconds_per_step
            measured = replace(
                told.measured,
                seconds_one=told.measured.seconds_one * slower,
                seconds_batch=told.measured.seconds_batch * slower,
                epoch_end_s=happened.epoch_end_s,
                most_mib=happened.memory_mib,
            )
            return measured, f"as run {told.run[:16]} went"
    return None


def _worked_out(job: Job, training_set: Manifest, cost: str, measured: Measured, source: str) -> Forecast:
    settings = job.settings
    looks = looks_per_bucket([Example.of(row) for row in training_set.kept])
    processes = settings.num_processes
    steps = steps_per_epoch(looks, settings.batch_size, batches_per_step(settings, processes))
    # each process has a device of its own, as the one that was measured
    seconds = epoch_seconds(measured, looks, settings.batch_size) / processes
    return Forecast(
        run=job.key,
        cost=cost,
        source=source,
        measured=measured,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        steps=settings.epochs * steps,
        seconds_per_step=seconds / steps,
        seconds=settings.epochs * (seconds + measured.epoch_end_s),
        memory_mib=measured.memory_mib(settings.batch_size),
    )


def _read(file: Path) -> Forecast | None:
    try:
        fields: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        measured = Measured(**fields.pop("measured"))
        return Forecast(**fields, measured=measured)
    except (OSError, ValueError, TypeError, KeyError):  # none, or of another version
        return None


@dataclass(frozen=True)
class Happened:
    """What a run took.

    Args:
        seconds: all steps and all epochs' ends.
        seconds_per_step: mean.
        epoch_end_s: mean.
        memory_mib: the most.
    """

    seconds: float
    seconds_per_step: float
    epoch_end_s: float
    memory_mib: float


def what_happened(run: Path) -> Happened | None:
    """What a run took as far as it went, from what it wrote; None before its first epoch's end."""
    steps, epochs = steps_in(run / "steps.jsonl"), epochs_told_in(run / "epochs.jsonl")
    if not steps or not epochs:
        return None
    in_steps, in_ends = sum(one.seconds for one in steps), sum(one.seconds for one in epochs)
    return Happened(
        seconds=in_steps + in_ends,
        seconds_per_step=in_steps / len(steps),
        epoch_end_s=in_ends / len(epochs),
        memory_mib=max(one.memory_mib for one in (*steps, *epochs)),
    )


@dataclass(frozen=True)
class Compared:
    """One number as it was forecast and as it came."""

    what: str
    forecast: float
    happened: float

    @property
    def off(self) -> float:
        """By what share more came than was forecast; negative for less."""
        return self.happened / self.forecast - 1

    def in_words(self) -> tuple[str, str, str, str]:
        """What, its forecast, what happened, and how far off that is."""
        return self.what, _number(self.forecast), _number(self.happened), f"{self.off:+.0%}"


def compare(run: Path) -> tuple[Compared, ...]:
    """A finished run's forecast beside what happened: seconds a step, seconds, memory (MiB). Empty if none was made."""
    told, happened = _read(run / FORECAST), what_happened(run)
    if told is None or happened is None:
        return ()
    return (
        Compared("seconds a step", told.seconds_per_step, happened.seconds_per_step),
        Compared("seconds", told.seconds, happened.seconds),
        Compared("memory (MiB)", told.memory_mib, happened.memory_mib),
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _span(hours: float) -> str:
    if hours >= 1:
        return f"{hours:.1f} hours"
    return f"{hours * 60:.1f} minutes"
