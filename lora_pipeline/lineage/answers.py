"""What is answered: which photos made a checkpoint, and what a photo went into; as records, and in words."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Since = Literal["unchanged", "changed", "gone"]

_WHOSE = {"regularisation": "of a folder", "pool": "of other subjects", "generated": "drawn by the base model"}


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
        verdict: why it was chosen or not, as a sentence; empty if it was not judged.
    """

    subject: str
    asked: str
    epoch: int
    run: str
    trained_on: str
    lora: Path | None
    photos: tuple[TrainedPhoto, ...]
    aside: tuple[str, ...] = ()
    verdict: str = ""

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
            *([f"judged: {self.verdict}"] if self.verdict else []),
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


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _beside(photos: Sequence[TrainedPhoto]) -> str:
    """Regularisation pictures, counted by whose they are."""
    whose = Counter(_WHOSE[photo.id.split("/")[0]] for photo in photos for _ in photo.pictures)
    told = ", ".join(f"{count} {words}" for words, count in whose.items())
    return f"{_many(whose.total(), 'regularisation picture')}: {told}"
