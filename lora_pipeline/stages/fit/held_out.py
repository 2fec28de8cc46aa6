"""Photos that are kept aside, so that the loss on them says whether a LoRA learns its subject or learns its photos by heart."""

from dataclasses import replace

from lora_pipeline.balance import NO_ROOM, balanced
from lora_pipeline.errors import TrainingError
from lora_pipeline.manifest import Manifest
from lora_pipeline.records import Example, Row
from lora_pipeline.settings import FitSettings

REASON = "kept aside for the held-out loss (fit.held_out_share): it trained nothing"
_MARK = "held_out"


def without_held_out(training_set: Manifest, settings: FitSettings) -> Manifest:
    """The training set with all pictures of so great a share of its photos no longer kept.

    Whole photos, since another crop of a photo that was trained on is half known. Which ones hangs on their digests alone, whose
    order is as good as drawn: a photo more or less changes the fate of no more than one other. Regularisation pictures are not among them,
    but are seen less often then, so that they are no more than half of what is left.

    Raises:
        TrainingError: there are photos to keep aside and then none to train on.
    """
    if not settings.held_out_share or not training_set.kept:
        return training_set
    photos = sorted({_photo(row) for row in training_set.kept if not Example.of(row).regularisation})
    count = max(1, round(settings.held_out_share * len(photos)))
    if count >= len(photos):
        raise TrainingError(
            f"fit.held_out_share keeps {count} of {len(photos)} photos aside, so that none is left to train on: set it to 0, or add photos"
        )
    aside = set(photos[:count])
    rows = tuple(
        row.with_data(**{_MARK: True}).but("dropped", REASON) if row.state == "kept" and _photo(row) in aside else row
        for row in training_set.rows
    )
    return replace(training_set, rows=balanced_again(rows))


def balanced_again(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """Rows of a training set of which some are no longer kept, their regularisation pictures seen as often as what is left of the subject."""
    kept = [(row.id, Example.of(row)) for row in rows if row.state == "kept"]
    looks = sum(example.repeats for _, example in kept if not example.regularisation)
    room = balanced([id for id, example in kept if example.regularisation], looks)
    return tuple(
        row
        if row.id not in room
        else row.with_data(repeats=room[row.id])
        if room[row.id]
        else row.but("dropped", NO_ROOM)
        for row in rows
    )


def held_out(training_set: Manifest) -> Manifest:
    """What `without_held_out` kept aside, as rows that can be read."""
    rows = (row for row in training_set.rows if row.data.get(_MARK))
    return replace(training_set, rows=tuple(replace(row, state="kept", reason="") for row in rows))


def _photo(row: Row) -> str:
    example = Example.of(row)
    return example.photo_digest or example.photo
