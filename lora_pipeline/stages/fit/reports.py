"""What training says of itself: a report a step and a report an epoch, as frozen records and as lines of JSON."""

import json
from dataclasses import asdict, dataclass
from typing import Any


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
        pictures: ids of the batch's pictures.
    """

    step: int
    epoch: int
    images_seen: int
    loss: float
    learning_rate: float
    seconds: float
    pictures: tuple[str, ...]


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
    """

    epoch: int
    file: str
    sample: str
    digests: dict[str, str]
    loss: float
    learning_rate: float
    seconds_per_step: float
    images_seen: int


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
