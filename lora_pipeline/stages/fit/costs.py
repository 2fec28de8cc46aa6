"""What a run takes, worked out from a few measured steps: seconds, memory, and what would make it fit. Arithmetic alone.

A batch of b pictures takes t(b) = t(1) + (b − 1) · Δt seconds and at its most m(b) = m(1) + (b − 1) · Δm of memory, lines through what
was measured at 1 and at the real batch. Pictures of another size take as much more time as they have more pixels.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from lora_pipeline.settings import FitSettings
from lora_pipeline.stages.fit.order import Size

MEASURED = "measured.json"
# A number of the LoRA in float32 has a gradient and AdamW's two moments beside it.
_NUMBERS_PER_WEIGHT = 4


@dataclass(frozen=True)
class Measured:
    """A few steps of the real training on one device. Memory is the graphics card's, or on a CPU the process's.

    Args:
        device: in words.
        batch_size: pictures of the greatest batch that was tried: the real one, or 1 if that would not have fitted.
        area_px: of the pictures, the largest of the training set.
        seconds_one: a step of one picture takes.
        seconds_batch: a step of `batch_size` pictures takes.
        epoch_end_s: an epoch's end takes: saving, the sample, the held-out loss.
        free_mib: all that training may take.
        weights_mib: of the base model's denoiser, and of its text encoders where they are trained.
        lora_mib: of the LoRA, without its gradients and moments.
        resident_mib: what is there between two steps.
        one_mib: the most in a step of one picture.
        batch_mib: the most in a step of `batch_size` pictures.
        most_mib: the most of all: the opening, the steps, an epoch's end and a step after it.
        checkpointed_mib: as `one_mib` with gradient checkpointing; None where that was on, or not needed to fit.
        too_many: pictures of a batch for which memory did not suffice although it was foreseen to; None if none.
        texts_mib: of those text encoders alone.
    """

    device: str
    batch_size: int
    area_px: int
    seconds_one: float
    seconds_batch: float
    epoch_end_s: float
    free_mib: float
    weights_mib: float
    lora_mib: float
    resident_mib: float
    one_mib: float
    batch_mib: float
    most_mib: float
    checkpointed_mib: float | None = None
    too_many: int | None = None
    texts_mib: float = 0.0

    def seconds(self, pictures: int, area_px: int) -> float:
        """Of a batch of so many pictures of that size."""
        each = self.seconds_one  # not measured at more than 1: as slow as one after the other
        if self.batch_size > 1:
            each = max(0.0, (self.seconds_batch - self.seconds_one) / (self.batch_size - 1))
        return (self.seconds_one + each * (pictures - 1)) * area_px / self.area_px

    def memory_mib(self, pictures: int) -> float:
        """The most in a run of batches of so many pictures of the largest size."""
        each = self.one_mib - self.resident_mib
        if self.batch_size > 1:
            each = (self.batch_mib - self.one_mib) / (self.batch_size - 1)
        if pictures == self.batch_size:
            return self.most_mib
        line = self.one_mib + max(0.0, each) * (pictures - 1)
        return max(line, self.most_mib) if pictures > self.batch_size else line

    def checkpointed(self, pictures: int) -> float | None:
        """As `memory_mib` with gradient checkpointing; None if that was not measured."""
        if self.checkpointed_mib is None:
            return None
        each = max(0.0, self.checkpointed_mib - self.resident_mib)
        return self.checkpointed_mib + each * (pictures - 1)

    def fits(self, pictures: int) -> bool:
        """Whether memory suffices for batches of so many."""
        return self.memory_mib(pictures) <= self.free_mib and (self.too_many is None or pictures < self.too_many)


def epoch_seconds(measured: Measured, looks: Mapping[Size, int], batch_size: int) -> float:
    """Seconds of all batches of an epoch, the short ones at each bucket's end as short as they are.

    Args:
        looks: how often pictures of each bucket are seen in it.
        batch_size: pictures of a full batch.
    """
    seconds = 0.0
    for (width, height), count in looks.items():
        full, rest = divmod(count, batch_size)
        seconds += full * measured.seconds(batch_size, width * height)
        seconds += measured.seconds(rest, width * height) if rest else 0.0
    return seconds


def remedies(measured: Measured, settings: FitSettings) -> tuple[str, ...]:
    """What would make a run fit that does not, each alone: settings with their values, and what they would take."""
    wanted, free = settings.batch_size, measured.free_mib
    told: list[str] = []
    smaller = next((b for b in range(wanted - 1, 0, -1) if measured.fits(b)), None)
    if smaller is not None:
        told.append(f"{_batches(smaller, settings)} ({measured.memory_mib(smaller):,.0f} MiB)")
    for batch in range(wanted, 0, -1):
        memory = measured.checkpointed(batch)
        if memory is not None and memory <= free:
            beside = "" if batch == wanted else f" and {_batches(batch, settings)}"
            told.append(f"fit.gradient_checkpointing: true{beside} ({memory:,.0f} MiB)")
            break
    told += _lighter_base(measured, settings)
    missing = measured.memory_mib(wanted) - free
    dim = math.floor(settings.network_dim * (1 - missing / (_NUMBERS_PER_WEIGHT * measured.lora_mib)))
    if measured.too_many is None and 1 <= dim < settings.network_dim:
        told.append(f"fit.network_dim: {dim}")
    return tuple(told)


def _lighter_base(measured: Measured, settings: FitSettings) -> list[str]:
    """The base model's denoiser in int8, a quarter of float32, where a graphics card can hold it so."""
    memory = measured.memory_mib(settings.batch_size) - (measured.weights_mib - measured.texts_mib) * 3 / 4
    if settings.base_precision != "fp32" or measured.too_many is not None or measured.device.startswith(("cpu", "mps")):
        return []
    beside = " with fit.mixed_precision: bf16" if settings.mixed_precision == "no" else ""
    return [f"fit.base_precision: int8{beside} ({memory:,.0f} MiB)"] if memory <= measured.free_mib else []


def _batches(size: int, settings: FitSettings) -> str:
    """The setting of a smaller batch, and of so many a step that a step still sees as many pictures."""
    steps = math.ceil(settings.batch_size * settings.gradient_accumulation_steps / size)
    return f"fit.batch_size: {size} with fit.gradient_accumulation_steps: {steps}"
