"""One run in this process: reads the trainer's reports and, at the right ones, saves, draws and writes lines.

Of several processes each trains, and the leader alone does the rest. All read the state, and none writes one before all have taken a step.

What a kill can leave behind, and what the next process makes of it:

- lines of `steps.jsonl` later than the state: cut off, the steps are done again (to the same bits);
- an epoch's state without its line in `epochs.jsonl`: the file and the sample are written again (the same bytes);
- a finished run with its state still there: the state is removed.
"""

import json
import pickle
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_pipeline.errors import OutOfMemory, PipelineError, TrainingError
from lora_pipeline.families import Family, best_device, family, give_back_memory
from lora_pipeline.lineage import MADE_WITH, environment
from lora_pipeline.pictures import save
from lora_pipeline.settings import FitSettings
from lora_pipeline.stages.fit.adapter import alpha_of, conv_alpha_of
from lora_pipeline.stages.fit.board import Board
from lora_pipeline.stages.fit.group import Group
from lora_pipeline.stages.fit.job import Job, epochs_in, steps_in
from lora_pipeline.stages.fit.memory import named
from lora_pipeline.stages.fit.optimizer import settled
from lora_pipeline.stages.fit.order import looks_per_bucket
from lora_pipeline.stages.fit.reports import EpochReport, TrainingReport, to_line
from lora_pipeline.stages.fit.trainer import Trainer, most_memory_mib, read_cached
from lora_pipeline.store import digest_file, whole, write_text

SAMPLE_STEPS = 20


def run(
    job: Job, stopped: Callable[[], bool] = lambda: False, device: str = "", group: Group = Group()
) -> Iterator[TrainingReport]:
    """Train from where the run's folder says it is, to its end.

    Args:
        job: what is trained, and where.
        stopped: asked after each step; once true in one process, the state is saved and the reports of all end.
        device: empty for the best there is.
        group: the processes that train this run. The leader's alone give reports.

    Raises:
        TrainingError: nothing to train on, a loss that is not finite, a damaged state, or not the same state for all processes.
        OutOfMemory: memory does not suffice.
        ModelError: the base model cannot be opened.
    """
    with named(job.settings):
        yield from _run(job, stopped, device or best_device(), group)


def _run(job: Job, stopped: Callable[[], bool], device: str, group: Group) -> Iterator[TrainingReport]:
    repeatable(device)
    base_family = family(job.base.family)
    examples = read_cached(job.examples)
    held_out = read_cached(job.held_out) if job.held_out.kept else []
    trainer = Trainer(examples, base_family, job.base, job.settings, device, held_out, group)
    epochs = _continue(trainer, job)
    if group.total(trainer.step) != group.size * trainer.step:
        raise TrainingError(
            f"the processes of this run do not go on from the same step: its folder ({job.run}) must be one and the same on all machines"
        )
    if not group.leads:
        for _ in trainer.steps():
            if group.total(stopped()):
                break
        group.leave()
        return
    base_digest = base_family.digest(job.base, "denoiser")
    write_text(job.run / MADE_WITH, json.dumps({**environment(device), "base": base_digest}, indent=1) + "\n")
    epochs = epochs[: trainer.epoch]
    _cut_off(job, trainer.step, epochs)
    if trainer.step == 0:
        trainer.base_held_out_loss = trainer.held_out_loss()
    sampler = Sampler(job, base_family, trainer, device)
    with Board(job.run, steps_in(job.steps_file), epochs_in(job.epochs_file)) as board:
        if trainer.epoch > len(epochs) and trainer.step % trainer.steps_per_epoch == 0:
            yield board.shown(finish_epoch(job, base_family, trainer, sampler))
        saved = time.monotonic()
        for report in trainer.steps():
            _append(job.steps_file, to_line(report))
            yield board.shown(report)
            ends_epoch = trainer.step % trainer.steps_per_epoch == 0
            if ends_epoch:
                yield board.shown(finish_epoch(job, base_family, trainer, sampler))
            stop = group.total(stopped()) > 0
            due = stop or state_is_due(job.settings, trainer.step, time.monotonic() - saved)
            if due and not ends_epoch:
                _save_state(job, trainer)
            if due or ends_epoch:
                saved = time.monotonic()
            if stop and trainer.epoch < job.settings.epochs:
                break
        else:
            shutil.rmtree(job.state.parent, ignore_errors=True)
    group.leave()


def state_is_due(settings: FitSettings, step: int, since_s: float) -> bool:
    """Whether the state is to be saved after a step, in the middle of an epoch.

    Args:
        step: of the run, 1 for the first.
        since_s: seconds since the last state.
    """
    by_steps = settings.state_every_steps > 0 and step % settings.state_every_steps == 0
    by_time = settings.state_every_minutes > 0 and since_s >= 60 * settings.state_every_minutes
    return by_steps or by_time


def repeatable(device: str) -> None:
    """The same sums in the same order each time, where the device can. float32 products on a GPU may use TF32's short mantissa."""
    import torch

    torch.set_float32_matmul_precision("high")
    if device == "cuda":
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(mode=True, warn_only=True)
        # That also writes NaN into all memory that is asked for, before anything is written there: to find reads of it, at the price of a pass.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _continue(trainer: Trainer, job: Job) -> list[EpochReport]:
    """Bring the trainer to the last saved state, and give the epochs told of, which may be later."""
    import torch

    epochs = epochs_in(job.epochs_file)
    if job.state.exists():
        try:
            state: Any = torch.load(job.state, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
            raise TrainingError(
                f"the saved state {job.state} is damaged ({error}); delete it to begin the run again"
            ) from error
        done, within = divmod(state["step"], trainer.steps_per_epoch)
        if len(epochs) >= (done if within else done - 1):  # else an epoch's file has gone: begin again
            trainer.resume(state)
    return epochs


def _cut_off(job: Job, step: int, epochs: Sequence[EpochReport]) -> None:
    """Leave no lines of later steps, and of these epochs alone."""
    write_text(job.steps_file, "".join(f"{to_line(one)}\n" for one in steps_in(job.steps_file) if one.step <= step))
    write_text(job.epochs_file, "".join(f"{to_line(epoch)}\n" for epoch in epochs))


def finish_epoch(job: Job, base_family: Family, trainer: Trainer, sampler: "Sampler") -> EpochReport:
    """Save the state, the LoRA and a sample of the epoch that the trainer's clock has just ended, and tell of it."""
    began = time.monotonic()
    epoch = trainer.epoch
    file = f"epoch-{epoch:04d}.safetensors"
    metadata = {
        "ss_network_dim": str(job.settings.network_dim),
        "ss_network_alpha": str(alpha_of(job.settings)),
        **_network_args(job.settings),
        "run": job.key,
        "epoch": str(epoch),
        "trained_on": job.trained_on,
        "base_model": job.base.model
        if not Path(job.base.model).exists()
        else Path(job.base.model).name,  # no path of the person's
    }
    _save_state(job, trainer)
    with settled(trainer.optimizer):
        base_family.save_lora(trainer.module, job.run / file, metadata, trainer.encoders)
        sample = sampler.draw(epoch) if job.prompt else ""
        held_out_loss = trainer.held_out_loss()
    steps = [step for step in steps_in(job.steps_file) if step.epoch == epoch]
    report = EpochReport(
        epoch=epoch,
        file=file,
        sample=sample,
        digests={path: digest_file(job.run / path) for path in (file, sample) if path},
        loss=sum(step.loss for step in steps) / len(steps),
        learning_rate=steps[-1].learning_rate,
        seconds_per_step=sum(step.seconds for step in steps) / len(steps),
        images_seen=trainer.images_seen,
        smoothed_loss=steps[-1].smoothed_loss,
        gradient_norm=sum(step.gradient_norm for step in steps) / len(steps),
        images_per_s=sum(len(step.pictures) for step in steps) / max(sum(step.seconds for step in steps), 1e-9),
        held_out_loss=held_out_loss,
        base_held_out_loss=trainer.base_held_out_loss,
        seconds=time.monotonic() - began,
        memory_mib=round(most_memory_mib(trainer.device), 1),
    )
    _append(job.epochs_file, to_line(report))
    return report


def _network_args(settings: FitSettings) -> dict[str, str]:
    """What kohya's readers look for where convolutions, or a LoKr or LoHa, were trained."""
    told: dict[str, str] = {}
    if settings.network_type in {"lokr", "loha"}:
        told["algo"] = settings.network_type
    if settings.network_type == "lokr":
        told["factor"] = str(settings.network_factor)
    if settings.network_conv_dim:
        told |= {"conv_dim": str(settings.network_conv_dim), "conv_alpha": str(conv_alpha_of(settings))}
    return {"ss_network_args": json.dumps(told)} if told else {}


def _save_state(job: Job, trainer: Trainer) -> None:
    import torch

    with whole(job.state) as aside:
        torch.save(trainer.state(), aside)


def _append(file: Path, line: str) -> None:
    with file.open("a", encoding="utf-8") as handle:
        handle.write(f"{line}\n")


@dataclass(frozen=True)
class Sampler:
    """Draws one picture an epoch with the modules in training, from one noise.

    Autoencoder, and text encoders that are not trained, are opened for it each time and gone afterwards, so that training has their memory.
    """

    job: Job
    family: Family
    trainer: Trainer
    device: str

    def draw(self, epoch: int) -> str:
        """Path of the picture within the run's folder."""
        import torch

        trainer = self.trainer
        small = self.device == "cuda" and self.job.settings.base_precision != "fp32"
        # Text encoders in training answer in float32, and a pipeline brings to its autoencoder what it began with.
        dtype = self.family.half if small and not trainer.encoders else "float32"
        width, height = _commonest_size([one.example for one in trainer.examples])
        with trainer.drawing() as module:
            pipeline = self.family.pipeline(self.job.base, self.device, dtype, module, trainer.encoders)
            picture = pipeline(
                prompt=self.job.prompt,
                width=width,
                height=height,
                num_inference_steps=SAMPLE_STEPS,
                guidance_scale=self.job.guidance_scale,
                generator=torch.Generator().manual_seed(self.job.settings.seed),
            ).images[0]
            del pipeline
        give_back_memory()
        path = f"samples/epoch-{epoch:04d}.png"
        save(picture, self.job.run / path)
        return path


def _commonest_size(examples: Sequence[Any]) -> tuple[int, int]:
    return looks_per_bucket(examples).most_common(1)[0][0]


def error_line(error: PipelineError) -> str:
    """What the training process says when it must stop and the person can mend it."""
    return json.dumps({"error": str(error), "out_of_memory": isinstance(error, OutOfMemory)})
