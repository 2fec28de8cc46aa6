"""The step, and everything that is state. Whoever reads the reports saves, draws and shows."""

import math
import sys
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from lora_pipeline.errors import TrainingError
from lora_pipeline.families import Family, NoiseSchedule, PredictionKind, Quantised, TextEncoder
from lora_pipeline.manifest import Manifest
from lora_pipeline.records import Example
from lora_pipeline.settings import BaseSettings, FitSettings
from lora_pipeline.stages.fit import adapter, memory
from lora_pipeline.stages.fit.captions import caption_of, varies
from lora_pipeline.stages.fit.group import Group
from lora_pipeline.stages.fit.loss import (
    debiased_weight,
    face_weights,
    huber_threshold,
    latent_losses,
    min_snr_weight,
    noisy_latents,
    sample_losses,
    target_of,
)
from lora_pipeline.stages.fit.noise import Draw, draw, held_out_draws
from lora_pipeline.stages.fit.optimizer import optimizer_of
from lora_pipeline.stages.fit.order import Look, batches, batches_per_step, grouped, looks_per_bucket, steps_per_epoch
from lora_pipeline.stages.fit.reports import SMOOTHING, StepReport, smoothed
from lora_pipeline.stages.fit.schedule import learning_rate

State = dict[str, Any]
_REMEMBERED_TEXTS = 64
_QUANTISED: dict[str, Quantised] = {"int8": "int8", "nf4": "nf4"}
_FORMATS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


@dataclass(frozen=True)
class Cached:
    """One picture of the training set, read into memory.

    Args:
        id: of its row.
        example: bucket, repeats, words.
        latents: C×h×w; the mirrored picture's second, if there is one.
        visible: 1×h×w, likewise.
        conditioning: what the denoiser is told of it: its caption, and how it was framed.
    """

    id: str
    example: Example
    latents: tuple[Any, ...]
    visible: tuple[Any, ...]
    conditioning: dict[str, Any]


def read_cached(training_set: Manifest) -> list[Cached]:
    """Read all kept examples' files. Raises TrainingError if there are none, or a file is gone."""
    from safetensors.torch import load_file

    if not training_set.kept:
        raise TrainingError("there is nothing to train on: no picture of the training set was kept; its rows say why")
    read: list[Cached] = []
    for row in training_set.kept:
        try:
            latents, text = load_file(training_set.path(row, "latents")), load_file(training_set.path(row, "text"))
        except (OSError, KeyError) as error:
            raise TrainingError(
                f"{row.id}: its latents or its text embedding cannot be read ({error}); make the training set again"
            ) from error
        if "framing" in latents:
            text["framing"] = latents["framing"]
        looks = [name for name in ("", "_mirrored") if f"latents{name}" in latents]
        seen, visible = (tuple(latents[f"{what}{name}"] for name in looks) for what in ("latents", "visible"))
        read.append(Cached(row.id, Example.of(row), seen, visible, text))
    return read


def most_memory_mib(device: str) -> float:
    """The most that was taken so far (MiB): of the graphics card, or on a CPU by this process."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / 2**20
    # Not getrusage where it can be helped: on Linux a new process inherits its parent's maximum there.
    with suppress(OSError), Path("/proc/self/status").open(encoding="ascii") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)


def _check_kind(kind: PredictionKind, settings: FitSettings) -> None:
    """Refuse, before the model is opened, what is not defined for it. As sd-scripts, but with words in place of ignoring."""
    allowed = {"fp32": ("no", "bf16", "fp16"), "bf16": ("bf16",), "fp16": ("fp16",)}.get(
        settings.base_precision, ("bf16", "fp16")
    )
    if settings.mixed_precision not in allowed:
        raise TrainingError(
            f"fit.base_precision {settings.base_precision} cannot be reckoned with in fit.mixed_precision {settings.mixed_precision}: "
            f"set that to {' or '.join(allowed)}"
        )
    if kind != "flow" and settings.timestep_sampling != "uniform":
        raise TrainingError(
            f"fit.timestep_sampling {settings.timestep_sampling} is for flow-matching models, and the base model predicts {kind}: set it to uniform"
        )
    if kind == "flow" and settings.debiased_estimation_loss:
        raise TrainingError("fit.debiased_estimation_loss is not defined for a flow-matching model: switch it off")
    if kind == "flow" and settings.loss_type != "l2" and settings.huber_schedule == "snr":
        raise TrainingError(
            "fit.huber_schedule snr is not defined for a flow-matching model: set it to exponential or constant"
        )


class Trainer:
    """One run: a base model with a LoRA in it (in its text encoders too, if they are trained), and a clock.

    Everything that changes from step to step is in `state()`: the LoRA, the optimizer's moments, the scaler of fp16, and the
    clock (`step`, `images_seen`), the losses' running mean, and the base's held-out loss. The rest, noise and order included, is a function of the settings and the clock.
    """

    def __init__(
        self,
        examples: Sequence[Cached],
        family: Family,
        base: BaseSettings,
        settings: FitSettings,
        device: str,
        held_out: Sequence[Cached] = (),
        group: Group = Group(),
    ) -> None:
        import torch

        self.held_out = held_out
        self.base_held_out_loss: float | None = None

        self.examples, self.family, self.settings, self.device = examples, family, settings, device
        self.group = group
        self.schedule: NoiseSchedule = family.noise(base)
        _check_kind(self.schedule.kind, settings)
        self.module: Any = self._open_denoiser(base)
        self.parameters = adapter.inject(
            self.module,
            adapter.targets_of(family, settings),
            settings.network_dim,
            adapter.alpha_of(settings),
            settings.seed,
            settings.network_dropout,
            (settings.network_conv_dim, adapter.conv_alpha_of(settings)) if settings.network_conv_dim else None,
            kind=settings.network_type,
            factor=settings.network_factor,
        )
        if settings.blocks_to_swap:
            from lora_pipeline.stages.fit.swap import swap

            swap(self.module, family.blocks(self.module), settings.blocks_to_swap, device)
        elif settings.base_precision not in _QUANTISED:  # which is there already
            self.module.to(device)
        reads_weights = settings.network_type == "dora" or settings.blocks_to_swap
        if device == "cpu" and settings.mixed_precision == "no" and not reads_weights:
            from lora_pipeline.stages.fit.prepack import prepack

            prepack(self.module)
        self.module.train()
        self.parameters = adapter.parameters(self.module)
        groups: list[Any] = list(self.parameters.values())
        self.shares = [1.0]  # of the rate, of each of the optimizer's groups
        self.texts: TextEncoder | None = None
        if text_targets := adapter.text_targets_of(family, settings):
            self.texts = family.open_trained_texts(base)
            by_rate: dict[float, list[Any]] = {}
            for folder, its in self._inject_texts(self.texts.encoders, text_targets).items():
                by_rate.setdefault(self.text_rates[folder], []).extend(its.values())
                self.parameters |= its
            groups = [{"params": groups}, *({"params": its} for its in by_rate.values())]
            self.shares += [rate / settings.unet_lr for rate in by_rate]
        if settings.mixed_precision != "no" and settings.network_type != "dora":
            for module in (self.module, *self.encoders.values()):
                adapter.leave_casts_to_autocast(module)
        if settings.gradient_checkpointing:
            self.checkpoint()
        self.optimizer = optimizer_of(settings, groups, device)
        self.scaler = torch.amp.GradScaler(device, enabled=settings.mixed_precision == "fp16")  # type: ignore[attr-defined]
        self.alphas = torch.tensor(self.schedule.alphas, device=device)
        self.sigmas = torch.tensor(self.schedule.sigmas, device=device)
        if varies(settings) and (self.texts is None or self.texts.partial):
            # opened now, so that memory that does not suffice shows before the first step
            texts = family.open_texts(base, device, "float32")

            def encode_text(words: str) -> dict[str, Any]:
                return texts.encode([words])[0]

            self.encode_text = lru_cache(_REMEMBERED_TEXTS)(encode_text)
        self.step = 0
        self.images_seen = 0
        self.losses = 0.0  # the running sum that `smoothed` reads
        looks = looks_per_bucket([one.example for one in examples])
        self.batches_per_step = batches_per_step(settings, group.size)
        self.steps_per_epoch = steps_per_epoch(looks, settings.batch_size, self.batches_per_step)
        self.images_per_epoch = sum(looks.values())
        self.mirror = all(len(one.latents) == 2 for one in examples)

    def _open_denoiser(self, base: BaseSettings) -> Any:
        """The base's denoiser in the format that the settings ask for: on the CPU, or where it must be to be quantised."""
        precision, mixed = self.settings.base_precision, self.settings.mixed_precision
        if precision in _QUANTISED:
            return self.family.open_denoiser(base, self.device, _FORMATS[mixed], _QUANTISED[precision])
        return self.family.open_denoiser(base, "cpu", _FORMATS[precision])

    @property
    def text_rates(self) -> Mapping[str, float]:
        """Learning rates of the text encoders that can be trained, by the names of their folders; 0 is not trained."""
        return dict(zip(self.family.trained_texts, self.settings.text_encoder_lrs, strict=False))

    def _inject_texts(self, encoders: Mapping[str, Any], targets: tuple[str, ...]) -> dict[str, dict[str, Any]]:
        """Put a LoRA into each text encoder that is trained, of the denoiser's dim, alpha and dropout; its parameters by folder, and by
        folder and name."""
        settings, parameters = self.settings, dict[str, dict[str, Any]]()
        for number, (folder, encoder) in enumerate(encoders.items(), start=1):
            encoder.to(self.device)
            if not self.text_rates[folder]:
                continue
            adapter.inject(
                encoder,
                targets,
                settings.network_dim,
                adapter.alpha_of(settings),
                settings.seed + number,
                settings.network_dropout,
            )
            encoder.to(self.device).train()
            parameters[folder] = {f"{folder}.{name}": one for name, one in adapter.parameters(encoder).items()}
        return parameters

    @property
    def encoders(self) -> Mapping[str, Any]:
        """The text encoders that are trained, by the names of their folders."""
        encoders = {} if self.texts is None else self.texts.encoders
        return {folder: encoder for folder, encoder in encoders.items() if self.text_rates[folder]}

    def checkpoint(self) -> None:
        """Reckon layers' answers again on the way back, in place of keeping them: gradient checkpointing, from now on."""
        self.module.enable_gradient_checkpointing()
        for encoder in self.encoders.values():
            # transformers 4 has the older name alone; not reentrant, since the input needs no gradient
            newer = getattr(encoder, "activation_checkpointing_enable", encoder.gradient_checkpointing_enable)
            newer({"use_reentrant": False})

    def train(self, learning: bool = True) -> None:
        """Make ready to learn, or to be drawn with and judged (without dropout)."""
        for module in (self.module, *self.encoders.values()):
            module.train(learning)

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return self.step // self.steps_per_epoch

    def state(self) -> State:
        """All that a later process needs to go on as if nothing had happened; torch tensors and plain values."""
        return {
            "step": self.step,
            "images_seen": self.images_seen,
            "losses": self.losses,
            "base_held_out_loss": self.base_held_out_loss,
            "adapter": {name: parameter.detach().cpu().clone() for name, parameter in self.parameters.items()},
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def resume(self, state: State) -> None:
        """Go back to a saved state. Raises TrainingError if it is of another LoRA."""
        adapter.put_back(self.parameters, state["adapter"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.step, self.images_seen, self.losses = state["step"], state["images_seen"], state["losses"]
        self.base_held_out_loss = state["base_held_out_loss"]

    def steps(self) -> Iterator[StepReport]:
        """Train from the clock's time to the end of the run, a report a step.

        Raises:
            TrainingError: a loss or a gradient is not finite (before the update, and with the pictures' names).
            OutOfMemory: memory does not suffice.
        """
        while self.epoch < self.settings.epochs:
            epoch = self.epoch + 1
            order = batches(
                [one.example for one in self.examples],
                epoch,
                self.settings.batch_size,
                self.settings.seed,
                self.mirror,
                self.group.size,
            )
            steps = grouped(order, self.batches_per_step)
            for step in steps[self.step - self.epoch * self.steps_per_epoch :]:
                with memory.named(self.settings):
                    report = self._step(epoch, step)
                yield report

    def step_on(self, looks: tuple[Look, ...]) -> StepReport:
        """One update on one batch of these, whatever the order says: what a forecast times. Raises as `steps`, but for memory."""
        return self._step(self.epoch + 1, (looks,))

    def _step(self, epoch: int, step: tuple[tuple[Look, ...], ...]) -> StepReport:
        import torch

        began = time.monotonic()
        rate = learning_rate(self.settings, self.images_seen, self.settings.epochs * self.images_per_epoch)
        for group, share in zip(self.optimizer.param_groups, self.shares, strict=True):
            group["lr"] = rate * share
        self.optimizer.zero_grad(set_to_none=True)
        names = tuple(self.examples[look.picture].id for batch in step for look in batch)
        value = self._together(self._accumulate(step))
        if not math.isfinite(value):
            raise self._not_finite(f"loss is {value}", epoch, names)
        self.scaler.unscale_(self.optimizer)
        limit = self.settings.max_grad_norm or math.inf
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters.values(), limit))
        if (
            not math.isfinite(norm) and not self.scaler.is_enabled()
        ):  # the scaler of fp16 leaves such a step out by itself
            raise self._not_finite(f"gradient's norm is {norm}", epoch, names)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step += 1
        self.images_seen += len(names)
        self.losses = SMOOTHING * self.losses + (1 - SMOOTHING) * value
        seconds = time.monotonic() - began
        return StepReport(
            step=self.step,
            epoch=epoch,
            images_seen=self.images_seen,
            loss=value,
            learning_rate=rate,
            seconds=seconds,
            pictures=names,
            smoothed_loss=smoothed(self.losses, self.step),
            gradient_norm=norm,
            images_per_s=len(names) / max(seconds, 1e-9),
            memory_mib=round(most_memory_mib(self.device), 1),
        )

    def _accumulate(self, step: tuple[tuple[Look, ...], ...]) -> float:
        """Sum up the gradients of this process's batches of a step, and give their part of its loss.

        What the group does at once is one batch, of which the mean is over all pictures however the processes divide them.
        """
        losses: list[Any] = []
        seen = 0
        moments = grouped(step, self.group.size)
        for moment in moments:
            looks = sum(len(batch) for batch in moment)
            for rank, batch in enumerate(moment):
                if rank == self.group.rank and batch:
                    loss = self.loss(batch, seen) * (len(batch) / looks)
                    losses.append(loss.detach())
                    # accelerate, and so sd-scripts, divides by the setting even where an epoch's end leaves fewer batches
                    self.scaler.scale(loss / self.settings.gradient_accumulation_steps).backward()
                seen += len(batch)
        # asked for at the end, since a graphics card is waited for when its numbers are
        return sum((float(loss) / len(moments) for loss in losses), 0.0)

    def _together(self, loss: float) -> float:
        """Sum the loss, and in place the gradients, over the group, so that each process takes the same step."""
        if self.group.size == 1:
            return loss
        import torch

        parameters = list(self.parameters.values())
        # after an empty batch there are none, and in layers of a text encoder that are not read never any, as in one process alone
        there = torch.tensor([float(one.grad is not None) for one in parameters], device=self.device)
        gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in parameters]
        own = torch.cat([torch.tensor([loss], device=self.device), there, *(one.flatten() for one in gradients)])
        self.scaler.scale(own[:1])  # fp16's scaler begins with its first use, of which an empty batch made none
        whole, there, *parts = self.group.sum(own).split([1, len(parameters), *(one.numel() for one in parameters)])
        for parameter, part, any_there in zip(parameters, parts, there.tolist(), strict=True):
            parameter.grad = part.view_as(parameter) if any_there else None
        return float(whole)

    def loss(self, batch: Sequence[Look], ahead: int = 0) -> Any:
        """The loss of a batch, a scalar with its graph, at the clock's time and so many images of the same step later."""
        looks = [(self.examples[look.picture], int(look.mirrored)) for look in batch]
        drawn = [
            draw(self.settings, self.schedule, self.images_seen + ahead + at, one.latents[side].numpy())
            for at, (one, side) in enumerate(looks)
        ]
        if self.settings.network_dropout:
            import torch

            # dropout draws from torch's own stream: set from the clock, so that a resumed run drops the same
            clock = (self.settings.seed, 3, self.images_seen + ahead)
            torch.manual_seed(int(np.random.default_rng(clock).integers(2**63)))
        told = self._told([one for one, _ in looks], self.images_seen + ahead)
        return self._loss(looks, told, drawn)

    def held_out_loss(self) -> float | None:
        """Mean loss over the pictures kept aside, weighted as it is learnt from, or None if there are none.

        Always the same noise, the same timesteps and the whole captions, without dropout; one at a time, so that memory that
        trains suffices. It leaves no trace in what training does next.
        """
        import torch

        if not self.held_out:
            return None
        self.train(learning=False)
        with torch.no_grad():
            losses = [
                float(self._loss([(one, 0)], told, [drawn]))
                for number, one in enumerate(self.held_out)
                for told in [self._read([one], [one.example.caption])]
                for drawn in held_out_draws(self.schedule, number, one.latents[0].numpy())
            ]
        self.train()
        return sum(losses) / len(losses)

    def _loss(self, looks: Sequence[tuple[Cached, int]], told: Sequence[dict[str, Any]], drawn: Sequence[Draw]) -> Any:
        """The loss of pictures, each from one side, with what the denoiser is told of them and what is drawn for them."""
        import torch

        settings = self.settings
        latents = torch.stack([one.latents[side] for one, side in looks]).to(self.device)
        visible = torch.stack([one.visible[side] for one, side in looks]).to(self.device)
        if not settings.masked_loss:
            visible = torch.ones_like(visible)
        if settings.face_loss_weight != 1:
            visible = visible * torch.stack([self._face_weights(one, side) for one, side in looks]).to(self.device)
        conditioning = {name: torch.stack([one[name] for one in told]).to(self.device) for name in told[0]}
        noise = torch.stack([torch.from_numpy(one.noise) for one in drawn]).to(self.device)
        timesteps = torch.tensor([one.timestep for one in drawn], device=self.device)
        alpha, sigma = self.alphas[timesteps], self.sigmas[timesteps]
        with self._precision():
            answer = self.family.predict(
                self.module, noisy_latents(latents, noise, alpha, sigma), timesteps, conditioning
            )
        kind, count = self.schedule.kind, len(self.schedule.alphas)
        threshold = (
            None
            if settings.loss_type == "l2"
            else huber_threshold(settings.huber_schedule, settings.huber_c, timesteps, count, alpha, sigma)
        )
        errors = latent_losses(answer, target_of(kind, latents, noise, alpha, sigma), settings.loss_type, threshold)
        losses = sample_losses(errors, visible)
        losses = losses * torch.tensor([one.example.loss_weight for one, _ in looks], device=self.device)
        losses = losses * min_snr_weight(kind, alpha, sigma, settings.min_snr_gamma)
        if settings.debiased_estimation_loss:
            losses = losses * debiased_weight(kind, alpha, sigma)
        return losses.mean()

    def _face_weights(self, one: Cached, side: int) -> Any:
        """How many times the loss counts in each latent of a picture, or of its mirror image (side 1): 1×h×w."""
        weights = face_weights(
            one.example.face, one.example.bucket, one.latents[side].shape[-2:], self.settings.face_loss_weight
        )
        return weights.flip(-1) if side else weights

    def _told(self, pictures: Sequence[Cached], images_seen: int) -> list[dict[str, Any]]:
        """What the denoiser is told of looks at pictures, of which the first comes after so many images."""
        words = [caption_of(one.example.caption, self.settings, images_seen + at) for at, one in enumerate(pictures)]
        return self._read(pictures, words)

    def _read(self, pictures: Sequence[Cached], words: Sequence[str]) -> list[dict[str, Any]]:
        """What the denoiser is told of pictures with these words.

        `encode` has cached each caption as it stands. Of its variants there are more than a cache could hold (n! orders of n
        tags), and which ones a run needs hangs on its seed and on the course of its steps; so what is not the caption itself
        is encoded here, each text alone, so that its numbers do not hang on who else is in the batch. The last few are
        remembered: the empty caption comes again and again.

        Where text encoders are trained, a text's numbers are new at each step: theirs are encoded here, together, in their graph.
        """
        cached = [one.conditioning for one in pictures]
        if self.texts is None or self.texts.partial:
            cached = [
                one.conditioning if text == one.example.caption else {**one.conditioning, **self.encode_text(text)}
                for one, text in zip(pictures, words, strict=True)
            ]
        if self.texts is None:
            return cached
        with self._precision():
            told = self.texts.with_graph(words)
        return [{**one, **{name: values[at].float() for name, values in told.items()}} for at, one in enumerate(cached)]

    @contextmanager
    def drawing(self) -> Generator[Any]:
        """The module for a pipeline to draw with (and `encoders`, where they are trained), and afterwards all as they were.

        A base that is not held in float32 cannot be called with a pipeline's float32: it answers as in training, in float32 again.
        """
        self.train(learning=False)
        module, forward = self.module, self.module.forward
        if self.settings.base_precision != "fp32":
            from accelerate.utils import convert_outputs_to_fp32

            module.forward = convert_outputs_to_fp32(self._precision()(forward))
        try:
            yield module
        finally:
            module.forward = forward
            self.train()

    def _precision(self) -> Any:
        import torch

        kinds = {"bf16": torch.bfloat16, "fp16": torch.float16}
        kind = kinds.get(self.settings.mixed_precision)
        return nullcontext() if kind is None else torch.autocast(self.device, dtype=kind)

    def _not_finite(self, what: str, epoch: int, pictures: tuple[str, ...]) -> TrainingError:
        return TrainingError(
            f"training stopped before step {self.step + 1} (epoch {epoch}), of which nothing was learnt: its {what}. "
            f"Pictures in the batch: {', '.join(pictures)}. Look at them, and lower fit.unet_lr"
        )
