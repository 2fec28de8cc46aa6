"""What training says of itself: a report a step and a report an epoch, as frozen records and as lines of JSON."""

import json
from dataclasses import asdict, dataclass
from typing import Any

SMOOTHING = 0.98


def smoothed(losses: float, steps: int) -> float:
    """The mean that a running sum `losses` ← SMOOTHING × losses + (1 − SMOOTHING) × loss stands for after so many steps."""
    # Kingma and Ba 2015, "Adam", section 3: divided by the weight that all losses so far have together
    return losses / (1 - SMOOTHING**steps)


@dataclass(frozen=True)
class StepReport:
    """One update.

    Args:
        step: 1 for the first of the run.
        epoch: 1 for the first.
        images_seen: since the start of the run, this step's included.
        loss: of this step's batch, weighted as it was learnt from.
        learning_rate: that was used.
        seconds: the step took.
        pictures: ids of the step's pictures.
        smoothed_loss: exponential mean of the losses so far (`SMOOTHING` of it stays at each step), free of its beginning's bias.
        gradient_norm: of all that is trained, before it is clipped.
        images_per_s: of this step.
        memory_mib: the most that was taken so far: of the graphics card, or on a CPU by the whole process.
    """

    step: int
    epoch: int
    images_seen: int
    loss: float
    learning_rate: float
    seconds: float
    pictures: tuple[str, ...]
    smoothed_loss: float = 0.0
    gradient_norm: float = 0.0
    images_per_s: float = 0.0
    memory_mib: float = 0.0


@dataclass(frozen=True)
class EpochReport:
    """One epoch's end.

    Args:
        epoch: 1 for the first.
        file: the LoRA, a path within the run's folder.
        sample: a picture drawn with it, a path within the run's folder; empty for none.
        digests: SHA-256 of both files by path.
        loss: mean of the epoch's steps.
        learning_rate: at its last step.
        seconds_per_step: mean of the epoch's steps.
        images_seen: since the start of the run.
        held_out_loss: mean on the photos kept aside, weighted as training's; None if there are none.
        base_held_out_loss: the same before the first step.
        smoothed_loss: at its last step.
        gradient_norm: mean of the epoch's steps, before it is clipped.
        images_per_s: of the epoch's steps together.
        seconds: its end took: saving, the sample, the held-out loss.
        memory_mib: as of a step, the epoch's end included.
    """

    epoch: int
    file: str
    sample: str
    digests: dict[str, str]
    loss: float
    learning_rate: float
    seconds_per_step: float
    images_seen: int
    held_out_loss: float | None = None
    base_held_out_loss: float | None = None
    smoothed_loss: float = 0.0
    gradient_norm: float = 0.0
    images_per_s: float = 0.0
    seconds: float = 0.0
    memory_mib: float = 0.0


TrainingReport = StepReport | EpochReport


def to_line(report: TrainingReport) -> str:
    """A line of JSON, without the line's end."""
    return json.dumps(asdict(report))


def of_line(line: str) -> TrainingReport:
    """The report on a line. Raises ValueError or TypeError if it is none."""
    fields: dict[str, Any] = json.loads(line)
    if "file" in fields:
        return EpochReport(**fields)
    pictures = tuple(fields.pop("pictures"))
    return StepReport(**fields, pictures=pictures)
