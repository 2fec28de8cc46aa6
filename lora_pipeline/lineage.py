"""From a LoRA back to the photos it was made of, and from a photo on to everything that was made of it.

Read from what the stages leave: no run, no model, no Dagster. Of a training run, `fit/runs/<key>/trained_on.parquet` is the training
set as it was, so runs of settings and photos long changed can still be asked about.
"""

import difflib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

from lora_pipeline import subject as subjects
from lora_pipeline.errors import PipelineError, SubjectError
from lora_pipeline.families.lora_file import read_metadata
from lora_pipeline.manifest import Manifest, read
from lora_pipeline.records import Checkpoint, Example, Photo, Row
from lora_pipeline.store import Store, digest_file

Since = Literal["unchanged", "changed", "gone"]

_STAGES = ("collect", "curate", "crop", "conceal", "describe", "encode")
_NOUNS = dict(
    zip(
        _STAGES,
        ("source_photos", "curated_photos", "face_crops", "blurred_set", "captions", "training_set"),
        strict=True,
    )
)
_WHOSE = {"regularisation": "of a folder", "pool": "of other subjects", "generated": "drawn by the base model"}
_GRID_ID = re.compile(r"e(\d+)/p\d+/s\d+(?:@.+)?")
_EPOCH = re.compile(r"(?:epoch\s*)?0*(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class TrainedPicture:
    """A picture of the training set, cut from a photo.

    Args:
        id: `photo@framing`.
        framing: what follows the @ in the id; `whole` if nothing does.
        caption: the words that it was trained with.
        repeats: how often it was seen in an epoch.
        hidden: share of it that was kept out of the loss, 0 to 1.
        hidden_faces: other people's faces that are covered in it; None if the crop is not there any more.
    """

    id: str
    framing: str
    caption: str
    repeats: int
    hidden: float
    hidden_faces: int | None


@dataclass(frozen=True)
class TrainedPhoto:
    """A photo that was trained on.

    Args:
        id: its path within the photo folder.
        path: of the file now; empty if it is gone.
        digest: SHA-256 of the file that was trained on.
        since: whether what is made of the file now is still what was trained on. `changed` may be the photo, or how it is
            cut, covered or encoded.
        pictures: what was cut from it.
        regularisation: whether it shows others of the class. Then it has no path, and its id begins with `regularisation/` (of a folder),
            `pool/<subject>/` (of another subject) or `generated/` (drawn by the base model).
    """

    id: str
    path: str
    digest: str
    since: Since
    pictures: tuple[TrainedPicture, ...]
    regularisation: bool = False


@dataclass(frozen=True)
class Lineage:
    """What made a checkpoint.

    Args:
        subject: name.
        asked: what was asked about, in words.
        epoch: 0 for the base model, which is made of no photo of the subject.
        run: key of the training run; empty for the base model.
        trained_on: digest of the training set's manifest as it was.
        lora: the checkpoint's file; None for the base model.
        photos: in order of id.
        aside: ids of the photos that were kept aside for the held-out loss: no checkpoint of the run is made of them.
    """

    subject: str
    asked: str
    epoch: int
    run: str
    trained_on: str
    lora: Path | None
    photos: tuple[TrainedPhoto, ...]
    aside: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """In words, for a terminal."""
        if self.lora is None:
            return [f"{self.asked}: drawn by the base model without a LoRA, so no photo of {self.subject} is in it"]
        photos = [photo for photo in self.photos if not photo.regularisation]
        pictures = sum(len(photo.pictures) for photo in photos)
        beside = [photo for photo in self.photos if photo.regularisation]
        others = f", beside {_beside(beside)}" if beside else ""
        told = [
            f"{self.asked}: epoch {self.epoch} of run {self.run[:16]}, {self.lora}",
            f"made of {_many(len(photos), 'photo')} ({_many(pictures, 'picture')}{others}; training set {self.trained_on[:16]})",
        ]
        for photo in self.photos:
            gone = "; no longer in the source" if photo.since == "gone" else ""
            changed = "; the photo, or how it is cut or encoded, has changed since" if photo.since == "changed" else ""
            told += ["", f"{photo.id}  (sha256 {photo.digest[:16]}{gone}{changed})"]
            for picture in photo.pictures:
                faces = f", {_many(picture.hidden_faces, 'face')} hidden" if picture.hidden_faces else ""
                share = f", {picture.hidden:.0%} kept out of the loss" if picture.hidden else ""
                told.append(f"  {picture.framing}, seen {picture.repeats}× an epoch{faces}{share}: {picture.caption}")
        if self.aside:
            told += ["", f"kept aside for the held-out loss, and not trained on: {', '.join(self.aside)}"]
        return told


@dataclass(frozen=True)
class Made:
    """A checkpoint that a photo went into.

    Args:
        run: key of the training run.
        epoch: 1 for the first.
        lora: its file.
        current: whether it is of the run that stands now.
    """

    run: str
    epoch: int
    lora: Path
    current: bool


@dataclass(frozen=True)
class Descent:
    """What a photo went into.

    Args:
        subject: name.
        photo: its id.
        path: of the file; empty if it is gone.
        digest: SHA-256; empty if it is gone or could not be read.
        stopped: the asset at which the photo stops now; empty if it is in the training set.
        reason: why it stops there.
        left_out: of its crops that do not go on though others do: (id, reason).
        pictures: ids of its pictures in the training set as it is now.
        checkpoints: of all runs that are kept.
        grid: validation pictures drawn by those checkpoints.
        released: files released from those checkpoints.
        aside: keys of the runs in which it was kept aside for the held-out loss.
        beside: (subject, key of the run) of other subjects that it stood beside in training, as a regularisation picture.
    """

    subject: str
    photo: str
    path: str
    digest: str
    stopped: str
    reason: str
    left_out: tuple[tuple[str, str], ...]
    pictures: tuple[str, ...]
    checkpoints: tuple[Made, ...]
    grid: tuple[Path, ...]
    released: tuple[Path, ...]
    aside: tuple[str, ...] = ()
    beside: tuple[tuple[str, str], ...] = ()

    def lines(self) -> list[str]:
        """In words, for a terminal."""
        told = [f"{self.photo}  ({self.path or 'no longer in the source'})"]
        if self.stopped:
            told.append(f"is not in the training set: it stops at {self.stopped}: {self.reason}")
        else:
            told.append(f"is in the training set as {', '.join(self.pictures)}")
        told += [f"  not as {id}: {reason}" for id, reason in self.left_out]
        told += [f"kept aside for the held-out loss in run {run[:16]}, which did not train on it" for run in self.aside]
        told += [
            f"stood beside {subject} as a regularisation picture, in run {run[:16]}" for subject, run in self.beside
        ]
        if not self.checkpoints:
            return [*told, "no checkpoint, validation picture or released file is made of it"]
        for run in dict.fromkeys(made.run for made in self.checkpoints):
            mine = [made for made in self.checkpoints if made.run == run]
            epochs = ", ".join(str(made.epoch) for made in mine)
            told += [
                "",
                f"checkpoints of run {run[:16]} ({'the current one' if mine[0].current else 'an earlier one'}), epochs {epochs}:",
            ]
            told += [f"  {made.lora}" for made in mine]
        for what, files in (("validation pictures drawn by them", self.grid), ("released from them", self.released)):
            if files:
                told += ["", f"{what}:", *(f"  {file}" for file in files)]
        return told


@dataclass(frozen=True)
class _Checkpoint:
    epoch: int
    path: Path
    digest: str


@dataclass(frozen=True)
class _Run:
    key: str
    folder: Path
    trained_on: str
    examples: tuple[Row, ...]
    checkpoints: tuple[_Checkpoint, ...]
    samples: tuple[tuple[Path, int], ...]  # sample pictures and their epochs
    current: bool
    aside: frozenset[str] = frozenset()  # photos that were in its training set and trained nothing

    def epoch(self, epoch: int) -> _Checkpoint | None:
        return next((one for one in self.checkpoints if one.epoch == epoch), None)


@dataclass(frozen=True)
class _Left:
    """What the stages left of one subject."""

    subject: str
    stages: dict[str, Manifest]
    grids: Manifest
    released: Manifest
    runs: tuple[_Run, ...]

    @cached_property
    def _rows(self) -> dict[str, dict[str, Row]]:
        return {stage: {row.id: row for row in manifest.rows} for stage, manifest in self.stages.items()}

    def row(self, stage: str, id: str) -> Row | None:
        return self._rows[stage].get(id)

    @property
    def photos(self) -> list[str]:
        """Ids of all photos that there are, or that a run that is kept was trained on."""
        trained = {Example.of(row).photo for run in self.runs for row in run.examples}
        return sorted({row.id for row in self.stages["collect"].rows} | trained)

    @property
    def current(self) -> _Run | None:
        return next((run for run in self.runs if run.current), None)

    def by_digest(self, digest: str) -> tuple[_Run, _Checkpoint] | None:
        found = [(run, one) for run in self.runs for one in run.checkpoints if one.digest == digest]
        return min(found, key=lambda pair: not pair[0].current, default=None)


def ask(store: Store, subject: str, of: str) -> list[str]:
    """Answer in lines: of an epoch, LoRA file or drawn picture which photos made it; of a photo what it went into.

    Raises:
        SubjectError: there is no such subject.
        PipelineError: there is nothing of that name; the message names what is nearest.
    """
    left = _read(store, subject)
    found = _find_checkpoint(left, of)
    if found is not None:
        return _lineage(left, *found).lines()
    photo = _find_photo(left, of)
    if photo is not None:
        return _descent(store, left, photo).lines()
    raise PipelineError(
        _unknown(left, of, "epoch, LoRA file, drawn picture or photo", [*_checkpoint_names(left), *left.photos])
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
    left = _read(store, subject)
    found = _find_checkpoint(left, checkpoint)
    if found is None:
        raise PipelineError(_unknown(left, checkpoint, "epoch, LoRA file or drawn picture", _checkpoint_names(left)))
    return _lineage(left, *found)


def made_from(store: Store, subject: str, photo: str) -> Descent:
    """What a photo went into: checkpoints of all runs that are kept, pictures drawn by them, released files; or where it stopped, and why.

    Args:
        photo: its path within the photo folder, its whole path, or its file name if no other photo has it.

    Raises:
        SubjectError: there is no such subject.
        PipelineError: there is no such photo; the message names the nearest.
    """
    left = _read(store, subject)
    id = _find_photo(left, photo)
    if id is None:
        raise PipelineError(_unknown(left, photo, "photo", left.photos))
    return _descent(store, left, id)


def _read(store: Store, subject: str) -> _Left:
    if not store.work(subject, "collect").parent.is_dir():
        there = subjects.names(store)
        if subject in there:
            raise SubjectError(f"nothing was made of '{subject}' yet; run it first")
        near = difflib.get_close_matches(subject, there, n=1, cutoff=0.4)
        hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(there) or 'none yet'}"
        raise SubjectError(f"there is no subject '{subject}'; {hint}")
    stages = {stage: read(store.work(subject, stage)) for stage in _STAGES}
    grids, released = read(store.work(subject, "grids")), read(store.work(subject, "publish"))
    return _Left(subject, stages, grids, released, tuple(_runs(read(store.work(subject, "fit")))))


def _runs(fit: Manifest) -> Iterable[_Run]:
    """All runs that are kept, the one that stands now first."""
    now = {Checkpoint.of(row).run: row for row in fit.kept}
    runs: list[_Run] = []
    for file in sorted(fit.folder.glob("runs/*/trained_on.parquet")):
        folder = file.parent
        job = _json(folder / "job.json")
        key = str(job.get("key") or next((key for key in now if key.startswith(folder.name)), folder.name))
        checkpoints, samples = _epochs(folder)
        standing = [
            _Checkpoint(Checkpoint.of(row).epoch, fit.path(row, "lora"), row.files["lora"].digest)
            for row in fit.kept
            if Checkpoint.of(row).run == key
        ]
        trained_on = Checkpoint.of(now[key]).trained_on if key in now else str(job.get("trained_on", ""))
        examples = Manifest(folder, read(folder, "trained_on").rows)
        aside = frozenset(Example.of(row).photo for row in examples.rows if row.data.get("held_out"))
        runs.append(
            _Run(
                key,
                folder,
                trained_on or examples.digest,
                examples.kept,
                tuple(standing or checkpoints),
                tuple(samples),
                key in now,
                aside,
            )
        )
    return sorted(runs, key=lambda run: not run.current)


def _epochs(run: Path) -> tuple[list[_Checkpoint], list[tuple[Path, int]]]:
    """What a run's `epochs.jsonl` tells of, as far as it is still there."""
    checkpoints: list[_Checkpoint] = []
    samples: list[tuple[Path, int]] = []
    file = run / "epochs.jsonl"
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if file.exists() else ():
        try:
            told: dict[str, Any] = json.loads(line)
            epoch, lora, sample = int(told["epoch"]), str(told["file"]), str(told.get("sample") or "")
            digest = str(told["digests"][lora])
        except (ValueError, KeyError, TypeError):
            break  # the line that was being written when the run was killed
        if (run / lora).exists():
            checkpoints.append(_Checkpoint(epoch, run / lora, digest))
        if sample:
            samples.append((run / sample, epoch))
    return checkpoints, samples


def _json(file: Path) -> dict[str, Any]:
    try:
        return cast(dict[str, Any], json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


_Found = tuple[str, _Run | None, _Checkpoint | None]  # what was asked about; no run: the base model


def _find_checkpoint(left: _Left, asked: str) -> _Found | None:
    """The checkpoint that is meant, or None if nothing of the kind is. Raises PipelineError where it is meant but not there."""
    if number := _EPOCH.fullmatch(asked.strip()):
        return _of_epoch(left, int(number[1]))
    if asked.endswith(".safetensors"):
        return _of_file(left, asked)
    return _of_drawn(left, asked)


def _of_epoch(left: _Left, epoch: int) -> _Found:
    run = left.current
    if epoch == 0:
        return "epoch 0", None, None
    if run is None:
        raise PipelineError(f"{left.subject} has no checkpoint yet; train first (the asset lora_checkpoints)")
    one = run.epoch(epoch)
    if one is None:
        epochs = ", ".join(str(each.epoch) for each in run.checkpoints) or "none"
        raise PipelineError(f"the current run of {left.subject} has no epoch {epoch}; it has: {epochs}")
    return f"epoch {epoch}", run, one


def _of_file(left: _Left, asked: str) -> _Found | None:
    released = {left.released.path(row, role): row for row in left.released.kept for role in row.files}
    there = {one.path: one.digest for run in left.runs for one in run.checkpoints}
    named = [path for path in (*released, *there) if _is(path, asked)]
    path = Path(asked).expanduser() if Path(asked).expanduser().is_file() else named[0] if len(named) == 1 else None
    if path is None and named:
        # one file name in several runs: the current run's, which stands first
        path = named[0]
    if path is None:
        return None
    digest = digest_file(path)
    for row in left.released.kept:
        if digest in {file.digest for file in row.files.values()}:
            digest = str(row.data["checkpoint"])
    found = left.by_digest(digest) or _by_header(left, path)
    if found is None:
        raise PipelineError(
            f"{path} is not a LoRA of {left.subject} whose run is kept: neither its bytes nor its header are those of a checkpoint "
            f"under {', '.join(str(run.folder) for run in left.runs) or 'its work folder'}"
        )
    return str(path), *found


def _by_header(left: _Left, path: Path) -> tuple[_Run, _Checkpoint] | None:
    """By what training wrote into the file's header: a file whose numbers were cast since."""
    try:
        told = read_metadata(path)
        key, epoch = told.get("run", ""), int(told.get("epoch", "0"))
    except (OSError, ValueError):
        return None
    run = next((run for run in left.runs if key and run.key == key), None)
    one = None if run is None else run.epoch(epoch)
    return None if run is None or one is None else (run, one)


def _of_drawn(left: _Left, asked: str) -> _Found | None:
    for row in left.grids.rows:
        drawn = left.grids.path(row) if "picture" in row.files else None
        if row.id == asked.removesuffix(".png") or (drawn is not None and _is(drawn, asked)):
            found = left.by_digest(str(row.data.get("checkpoint", "")))
            if found is not None:
                return f"picture {row.id}", *found
            if row.data.get("checkpoint") == "":
                return f"picture {row.id}", None, None
            number = _GRID_ID.fullmatch(row.id)
            return _of_epoch(left, int(number[1])) if number else None
    for run in left.runs:
        for path, epoch in run.samples:
            one = run.epoch(epoch)
            if one is not None and _is(path, asked):
                return f"sample {path.name}", run, one
    return None


def _is(path: Path, asked: str) -> bool:
    """Whether the path is meant: the whole of it, or its end."""
    given = Path(asked).expanduser()
    return given.resolve() == path.resolve() or path.parts[-len(given.parts) :] == given.parts


def _find_photo(left: _Left, asked: str) -> str | None:
    ids = left.photos
    if asked in ids:
        return asked
    given = Path(asked).expanduser().resolve()
    for row in left.stages["collect"].rows:
        if row.data.get("path") and Path(str(row.data["path"])).resolve() == given:
            return row.id
    ends = [id for id in ids if Path(id).parts[-len(Path(asked).parts) :] == Path(asked).parts]
    if len(ends) > 1:
        raise PipelineError(
            f"{len(ends)} photos of {left.subject} are named '{asked}': {', '.join(ends)}; give the path within the photo folder"
        )
    return ends[0] if ends else None


def _checkpoint_names(left: _Left) -> list[str]:
    current = left.current
    epochs = [str(one.epoch) for one in current.checkpoints] if current else []
    loras = [one.path.name for run in left.runs for one in run.checkpoints]
    released = [
        Path(file.path).name
        for row in left.released.kept
        for role, file in row.files.items()
        if role in {"lora", "webui"}
    ]
    return list(dict.fromkeys([*epochs, *released, *loras, *(row.id for row in left.grids.rows)]))


def _unknown(left: _Left, asked: str, what: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(asked, names, n=3, cutoff=0.4) or difflib.get_close_matches(
        Path(asked).name, names, n=3, cutoff=0.4
    )
    hint = (
        f"did you mean {' or '.join(repr(name) for name in near)}?"
        if near
        else f"there are: {', '.join(names[:12]) or 'none yet'}{', …' if len(names) > 12 else ''}"
    )
    return f"{left.subject} has no {what} '{asked}'; {hint}"


def _lineage(left: _Left, asked: str, run: _Run | None, one: _Checkpoint | None) -> Lineage:
    if run is None or one is None:
        return Lineage(left.subject, asked, 0, "", "", None, ())
    of: dict[str, list[Row]] = {}
    for row in run.examples:
        of.setdefault(Example.of(row).photo, []).append(row)
    photos = tuple(_trained_photo(left, id, of[id]) for id in sorted(of))
    return Lineage(left.subject, asked, one.epoch, run.key, run.trained_on, one.path, photos, tuple(sorted(run.aside)))


def _trained_photo(left: _Left, id: str, rows: Sequence[Row]) -> TrainedPhoto:
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


def _trained_picture(left: _Left, row: Row) -> TrainedPicture:
    example = Example.of(row)
    concealed = left.row("conceal", row.id)
    faces = None if concealed is None else concealed.data.get("hidden")
    return TrainedPicture(
        row.id,
        _framing(row.id, example.photo),
        example.caption,
        example.repeats,
        example.hidden,
        faces if isinstance(faces, int) else None,
    )


def _framing(id: str, photo: str) -> str:
    return id.removeprefix(photo).lstrip("@") or "whole"


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _beside(photos: Sequence[TrainedPhoto]) -> str:
    """Regularisation pictures, counted by whose they are."""
    whose = Counter(_WHOSE[photo.id.split("/")[0]] for photo in photos for _ in photo.pictures)
    told = ", ".join(f"{count} {words}" for words, count in whose.items())
    return f"{_many(whose.total(), 'regularisation picture')}: {told}"


def _stood_beside(store: Store, subject: str, photo: str) -> Iterable[tuple[str, str]]:
    """Other subjects' runs that a photo was a regularisation picture of."""
    for name in sorted(fit.parent.name for fit in store.work(subject, "fit").parents[1].glob("*/fit")):
        for run in _runs(read(store.work(name, "fit"))):
            if any(Example.of(row).photo == f"pool/{subject}/{photo}" for row in run.examples):
                yield name, run.key


def _descent(store: Store, left: _Left, id: str) -> Descent:
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


def _stop(left: _Left, id: str) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    """(asset, reason) where the photo stops, both empty if it is in the training set; and the crops that stop before others."""
    left_out: list[tuple[str, str]] = []
    for stage in _STAGES:
        rows = [row for row in left.stages[stage].rows if row.id == id or _photo_of(row) == id]
        if not rows:
            gone = stage == "collect" and left.stages[stage].rows
            why = "it is no longer in the source" if gone else "it has not come so far yet; run the pipeline"
            return _NOUNS[stage], why, ()
        lost = [row for row in rows if row.state != "kept"]
        if len(lost) == len(rows):
            reasons = [row.reason if row.id == id else f"{_framing(row.id, id)}: {row.reason}" for row in lost]
            return _NOUNS[stage], "; ".join([*reasons, *(f"{_framing(cut, id)}: {why}" for cut, why in left_out)]), ()
        left_out += [(row.id, row.reason) for row in lost]
    return "", "", tuple(left_out)
