"""From a LoRA back to the photos it was made of, and from a photo on to everything that was made of it.

Read from what the stages leave: no run, no model, no Dagster.
"""

from collections.abc import Iterable, Sequence

from lora_pipeline.errors import PipelineError
from lora_pipeline.lineage.answers import Descent, Lineage, Made, Since, TrainedPhoto, TrainedPicture
from lora_pipeline.lineage.find import checkpoint_names, find_checkpoint, find_photo, unknown
from lora_pipeline.lineage.left import STAGES, KeptCheckpoint, KeptRun, Left, kept_runs, read_left
from lora_pipeline.manifest import read
from lora_pipeline.records import Example, Photo, Row
from lora_pipeline.store import Store

_NOUNS = dict(
    zip(
        STAGES,
        ("source_photos", "curated_photos", "face_crops", "blurred_set", "captions", "training_set"),
        strict=True,
    )
)


def ask(store: Store, subject: str, of: str) -> list[str]:
    """Answer in lines: of an epoch, LoRA file or drawn picture which photos made it; of a photo what it went into.

    Raises:
        SubjectError: there is no such subject.
        PipelineError: there is nothing of that name; the message names what is nearest.
    """
    left = read_left(store, subject)
    found = find_checkpoint(left, of)
    if found is not None:
        return _lineage(left, *found).lines()
    photo = find_photo(left, of)
    if photo is not None:
        return _descent(store, left, photo).lines()
    raise PipelineError(
        unknown(left, of, "epoch, LoRA file, drawn picture or photo", [*checkpoint_names(left), *left.photos])
    )


def photos_of(store: Store, subject: str, checkpoint: str) -> Lineage:
    """Which photos made a checkpoint.

    Args:
        checkpoint: an epoch's number in the current run; the path or name of a checkpoint's or released .safetensors file (also a
            copy of one: it is known by its bytes, else by its header); or the id (`e0003/p02/s0001`) or path of a picture drawn
            with it.

    Raises:
        SubjectError: there is no such subject.
        PipelineError: there is nothing of that name; the message names what is nearest.
    """
    left = read_left(store, subject)
    found = find_checkpoint(left, checkpoint)
    if found is None:
        raise PipelineError(unknown(left, checkpoint, "epoch, LoRA file or drawn picture", checkpoint_names(left)))
    return _lineage(left, *found)


def made_from(store: Store, subject: str, photo: str) -> Descent:
    """What a photo went into: checkpoints of all runs that are kept, pictures drawn by them, released files; or where it stopped, and why.

    Args:
        photo: its path within the photo folder, its whole path, or its file name if no other photo has it.

    Raises:
        SubjectError: there is no such subject.
        PipelineError: there is no such photo; the message names the nearest.
    """
    left = read_left(store, subject)
    id = find_photo(left, photo)
    if id is None:
        raise PipelineError(unknown(left, photo, "photo", left.photos))
    return _descent(store, left, id)


def _lineage(left: Left, asked: str, run: KeptRun | None, one: KeptCheckpoint | None) -> Lineage:
    if run is None or one is None:
        return Lineage(left.subject, asked, 0, "", "", None, ())
    of: dict[str, list[Row]] = {}
    for row in run.examples:
        of.setdefault(Example.of(row).photo, []).append(row)
    photos = tuple(_trained_photo(left, id, of[id]) for id in sorted(of))
    aside = tuple(sorted(run.aside))
    return Lineage(left.subject, asked, one.epoch, run.key, run.trained_on, one.path, photos, aside, left.verdict(one))


def _trained_photo(left: Left, id: str, rows: Sequence[Row]) -> TrainedPhoto:
    source = left.row("collect", id)
    photo = Photo.of(source) if source is not None and "digest" in source.data else None
    now = [left.row("encode", row.id) for row in rows]
    same = all(new is not None and _latents(new) == _latents(row) for new, row in zip(now, rows, strict=True))
    example = Example.of(rows[0])
    gone = now == [None] * len(now) if example.regularisation else photo is None
    since: Since = "gone" if gone else "unchanged" if same else "changed"
    pictures = tuple(_trained_picture(left, row) for row in rows)
    path = photo.path if photo else ""
    return TrainedPhoto(id, path, example.photo_digest, since, pictures, example.regularisation)


def _latents(row: Row) -> str:
    return row.files["latents"].digest if "latents" in row.files else ""


def _trained_picture(left: Left, row: Row) -> TrainedPicture:
    example = Example.of(row)
    concealed = left.row("conceal", row.id)
    faces = None if concealed is None else concealed.data.get("hidden")
    return TrainedPicture(
        row.id,
        framing_of(row.id, example.photo),
        example.caption,
        example.repeats,
        example.hidden,
        faces if isinstance(faces, int) else None,
    )


def framing_of(id: str, photo: str) -> str:
    return id.removeprefix(photo).lstrip("@") or "whole"


def _stood_beside(store: Store, subject: str, photo: str) -> Iterable[tuple[str, str]]:
    """Other subjects' runs that a photo was a regularisation picture of."""
    for name in sorted(fit.parent.name for fit in store.work(subject, "fit").parents[1].glob("*/fit")):
        for run in kept_runs(read(store.work(name, "fit"))):
            if any(Example.of(row).photo == f"pool/{subject}/{photo}" for row in run.examples):
                yield name, run.key


def _descent(store: Store, left: Left, id: str) -> Descent:
    source = left.row("collect", id)
    now = [Example.of(row) for row in left.stages["encode"].kept]
    if any(example.photo == id and example.regularisation for example in now):
        stopped, reason, left_out = "", "", ()
    else:
        stopped, reason, left_out = _stop(left, id)
    runs = [run for run in left.runs if any(Example.of(row).photo == id for row in run.examples)]
    checkpoints = [(run, one) for run in runs for one in run.checkpoints]
    digests = {one.digest for _, one in checkpoints}
    return Descent(
        subject=left.subject,
        photo=id,
        path=str(source.data.get("path", "")) if source else "",
        digest=str(source.data.get("digest", "")) if source else "",
        stopped=stopped,
        reason=reason,
        left_out=left_out,
        pictures=() if stopped else tuple(row.id for row in left.stages["encode"].kept if _photo_of(row) == id),
        checkpoints=tuple(Made(run.key, one.epoch, one.path, run.current) for run, one in checkpoints),
        grid=tuple(left.grids.path(row) for row in left.grids.kept if row.data.get("checkpoint") in digests),
        released=tuple(
            left.released.path(row, role)
            for row in left.released.kept
            if row.data.get("checkpoint") in digests
            for role in ("lora", "webui")
            if role in row.files
        ),
        aside=tuple(run.key for run in left.runs if id in run.aside),
        beside=tuple(_stood_beside(store, left.subject, id)),
    )


def _photo_of(row: Row) -> str:
    photo = row.data.get("photo")
    return str(photo) if photo else row.id.rpartition("@")[0] or row.id


def _stop(left: Left, id: str) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    """(asset, reason) where the photo stops, both empty if it is in the training set; and the crops that stop before others."""
    left_out: list[tuple[str, str]] = []
    for stage in STAGES:
        rows = [row for row in left.stages[stage].rows if row.id == id or _photo_of(row) == id]
        if not rows:
            gone = stage == "collect" and left.stages[stage].rows
            why = "it is no longer in the source" if gone else "it has not come so far yet; run the pipeline"
            return _NOUNS[stage], why, ()
        lost = [row for row in rows if row.state != "kept"]
        if len(lost) == len(rows):
            reasons = [row.reason if row.id == id else f"{framing_of(row.id, id)}: {row.reason}" for row in lost]
            return _NOUNS[stage], "; ".join([*reasons, *(f"{framing_of(cut, id)}: {why}" for cut, why in left_out)]), ()
        left_out += [(row.id, row.reason) for row in lost]
    return "", "", tuple(left_out)
