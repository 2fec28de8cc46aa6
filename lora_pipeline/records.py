"""What travels between stages: frozen records, each with its way to and from a manifest's row.

Coordinates of boxes are pixels of the **upright photo** (EXIF turned, bars not trimmed), x to the right, y down, as
(left, top, right, bottom) with right and bottom exclusive, unless a name says otherwise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self, cast

Value = None | bool | int | float | str | list[Any] | dict[str, Any]
State = Literal["kept", "dropped", "failed"]
Box = tuple[int, int, int, int]
Kind = Literal["person", "pet", "product", "style"]
Framing = Literal["close", "medium", "full", "whole"]
Whose = Literal["subject", "stranger", "unsure", "not_a_face"]
Better = Literal["less", "more", "same"]
About = Literal["likeness", "prompt", "memorising", "freedom", "drift", "damage"]
KNOWN_ONLY = 0.0
"""Confidence of a face that the photo library knows and the detector did not find: every find of a detector's scores higher."""

_IF_ASKED = {"pitch_deg", "roll_deg", "expression", "thing", "body", "persons"}


@dataclass(frozen=True, slots=True)
class File:
    """A file that a row names: its path within the stage's folder, and its SHA-256."""

    path: str
    digest: str


@dataclass(frozen=True, slots=True)
class Row:
    """One item of a manifest.

    Args:
        id: the item's name, unique in its manifest (a photo's path within its folder; `photo@framing` for a crop).
        key: hash of everything it was made from.
        state: `kept` (goes on), `dropped` (fine, but not wanted), `failed` (could not be used).
        reason: why it is not kept, for a person to read; empty for a kept row.
        data: what was measured; JSON values only.
        files: what was written, by role (`picture`, `mask`, …).
    """

    id: str
    key: str
    state: State = "kept"
    reason: str = ""
    data: Mapping[str, Value] = field(default_factory=dict)
    files: Mapping[str, File] = field(default_factory=dict)

    def with_data(self, **data: Value) -> "Row":
        """This row with some of its data replaced or added."""
        return replace(self, data={**self.data, **data})

    def but(self, state: State, reason: str) -> "Row":
        """This row, no longer kept, and why."""
        return replace(self, state=state, reason=reason)


class Record:
    """A frozen dataclass whose fields are a row's data."""

    __slots__ = ()

    def data(self) -> dict[str, Value]:
        """The fields as JSON values, for `manifest.Made`."""
        return asdict(self)  # type: ignore[call-overload]

    @classmethod
    def of(cls, row: Row) -> Self:
        """The record that a row holds. Raises TypeError if the row is of another kind."""
        names = cls.__dataclass_fields__  # type: ignore[attr-defined]
        return cls(**{name: _tupled(value) for name, value in row.data.items() if name in names})


@dataclass(frozen=True, slots=True)
class Photo(Record):
    """A source photo as it is on disk.

    Args:
        path: absolute path of the person's file, only ever read; of a photo out of an archive, a video or a server, that of
            the copy that `collect` keeps.
        digest: SHA-256 of the file's bytes.
        width_px, height_px: of the upright picture.
        format: Pillow's name of the format ("JPEG", "HEIF", …).
        taken: when, as the EXIF says ("2026:03:01 12:30:00"), or empty. No other EXIF is kept.
        tags: names of the folders in which it lies, outermost first.
        known_faces: where the photo library says that the subject's face is.
    """

    path: str
    digest: str
    width_px: int
    height_px: int
    format: str
    taken: str = ""
    tags: tuple[str, ...] = ()
    known_faces: tuple[Box, ...] = ()


@dataclass(frozen=True, slots=True)
class Quality(Record):
    """What `curate` measured of a photo, inside `trim`.

    Args:
        path, digest, width_px, height_px, tags, known_faces: as in `Photo`.
        trim: what is left of the upright photo when plain bars are cut off.
        sharpness: variance of the Laplacian of the luma (0 to 255) at 512 px on the long side; a smaller photo at its own size.
        brightness: mean luma, 0 (black) to 1 (white).
        contrast: standard deviation of the luma, 0 to 0.5.
        phash: perceptual hash (imagehash.phash, 64 bits) of the trimmed picture, 16 hexadecimal digits.
        duplicates: id of the group's best photo if this photo has near copies, else empty.
        true_side_px: short side in pixels at which the photo would still hold all its detail; a blow-up's is that of what was blown up.
        clipped_shadows, clipped_highlights: shares of the pixels that are black, and white, 0 to 1.
        noise: standard deviation of the noise of the luma (0 to 255).
        blocking: excess of a JPEG's steps between blocks, as a share of the mean step; 0 for none, over 1 for the worst.
        plain: share of pixels that equal their neighbours, 0 to 1: most of a screenshot's.
        tokens: words that its captions say of its weaknesses, if such photos are kept.
        by_hand: `keep` or `drop` if a person has decided so, else empty.
        text_boxes: lines of writing, watermarks among them, pixels of the upright photo.
        colour: how far its colours are from those of one tone, as black-and-white and sepia photos have it (levels of 255).
        tone: how strong its median tint is (levels of 255).
    """

    path: str
    digest: str
    width_px: int
    height_px: int
    trim: Box
    sharpness: float
    brightness: float
    contrast: float
    phash: str
    duplicates: str = ""
    tags: tuple[str, ...] = ()
    known_faces: tuple[Box, ...] = ()
    true_side_px: int = 0
    clipped_shadows: float = 0.0
    clipped_highlights: float = 0.0
    noise: float = 0.0
    blocking: float = 0.0
    plain: float = 0.0
    tokens: tuple[str, ...] = ()
    by_hand: str = ""
    text_boxes: tuple[Box, ...] = ()
    colour: float = 0.0
    tone: float = 0.0


@dataclass(frozen=True)
class Face(Record):
    """A face found in a photo.

    Args:
        photo: id of the photo.
        box: around the face, brow to chin, pixels of the upright photo.
        confidence: the detector's own score (its scale differs by detector); `KNOWN_ONLY` of a face that it did not find.
        landmarks: (x, y) points, pixels of the upright photo: outer and inner corner of the picture's right eye, the same
            of its left eye, base of the nose (dlib's five points).
        descriptor: identity vector, 128 numbers of dlib's ResNet or 512 of InsightFace's; two of one person lie under 0.6 (Euclidean).
        yaw_deg: head yaw from the landmarks, positive when the nose points to the picture's right; about ±10.
        whose: the subject's, a stranger's, too unsure to say (hidden as a stranger's is), or, by a person's word, no face at all.
        known: whether the photo library says that it is the subject's.
        id: `<photo>#<number>`, as `people.face_ids` counts; empty before it is decided whose the face is.
        distance: of the descriptor from the subject's, Euclidean; None where nobody is looked for.
        by_hand: whether `people.yaml` says whose it is.
        name: of the stranger, as `people.yaml` names them; else empty.
        pitch_deg: how far the head nods, positive when the nose points up; of the subject's alone, None if it is not measured.
        roll_deg: how far the head leans, positive when it leans to the picture's right; as `pitch_deg`.
        expression: a classifier's (label, score from 0 to 1), best first; of the subject's alone, empty if it is not asked for.
    """

    photo: str
    box: Box
    confidence: float
    landmarks: tuple[tuple[float, float], ...]
    descriptor: Sequence[float]
    yaw_deg: float
    whose: Whose = "unsure"
    known: bool = False
    id: str = ""
    distance: float | None = None
    by_hand: bool = False
    name: str = ""
    pitch_deg: float | None = None
    roll_deg: float | None = None
    expression: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Crop(Record):
    """A cut-out of a photo at the training size.

    Args:
        photo: id of the photo.
        framing: how much of the subject it shows; `whole` is the whole picture (kinds without faces).
        region: what was cut out, pixels of the upright photo.
        width_px, height_px: of the crop.
        face: the subject's face in the crop's own pixels, or None.
        strangers: other people's faces that reach into the crop, in the crop's own pixels.
        yaw_deg: of the subject's head, or None.
        photo_digest: SHA-256 of the photo's file.
        tags: as in `Photo`.
        pitch_deg, roll_deg, expression: as in `Face`.
        thing: the pet or product in the crop's own pixels, if it was looked for.
        body: the subject, hair to feet, in the crop's own pixels, if people were looked for.
        persons: other people who reach into the crop, whether their faces are seen or not, as `body`.
    """

    photo: str
    framing: Framing
    region: Box
    width_px: int
    height_px: int
    face: Box | None = None
    strangers: tuple[Box, ...] = ()
    yaw_deg: float | None = None
    photo_digest: str = ""
    tags: tuple[str, ...] = ()
    pitch_deg: float | None = None
    roll_deg: float | None = None
    expression: tuple[tuple[str, float], ...] = ()
    thing: Box | None = None
    body: Box | None = None
    persons: tuple[Box, ...] = ()

    def data(self) -> dict[str, Value]:
        """Without what is measured only where it is asked for, if it is not: a row keeps the key that it has had before."""
        data = super().data()
        return {name: value for name, value in data.items() if name not in _IF_ASKED or value not in (None, ())}


@dataclass(frozen=True)
class Caption(Record):
    """The words that a picture is trained with.

    Args:
        photo: id of the photo.
        text: the whole caption, trigger word included.
        source: `hand`, `measured`, `blip`, …
    """

    photo: str
    text: str
    source: str


@dataclass(frozen=True)
class Example(Record):
    """A picture and its words as training sees them.

    Args:
        photo: id of the photo.
        bucket: width and height to which the picture was brought, pixels.
        own_bucket: the bucket that its own shape asks for; another than `bucket` if that one would have filled no batch.
        repeats: how often it is seen in an epoch.
        caption: the words that were encoded.
        hidden: share of its latents that are kept out of the loss, 0 to 1.
        cut_tokens: tokens at the caption's end that the text encoder has no room for.
        photo_digest: SHA-256 of the photo's file, as it was when the picture was cut from it.
        loss_weight: what its loss is multiplied by: 1 for the subject, the prior loss weight for a regularisation picture.
        regularisation: whether it shows others of the class, not the subject.
        face: the subject's face in the bucket's own pixels; None if none is seen, or training weighs no faces.
    """

    photo: str
    bucket: tuple[int, int]
    repeats: int
    caption: str
    hidden: float
    cut_tokens: int = 0
    photo_digest: str = ""
    loss_weight: float = 1.0
    regularisation: bool = False
    own_bucket: tuple[int, int] | None = None
    face: Box | None = None

    def data(self) -> dict[str, Value]:
        """Without the face where there is none: the row of a training that weighs no faces is what it has been before."""
        data = super().data()
        return {name: value for name, value in data.items() if name != "face" or value is not None}


@dataclass(frozen=True)
class Checkpoint(Record):
    """The LoRA after an epoch.

    Args:
        epoch: 1 for the first.
        run: key of the training run.
        trained_on: digest of the training set's manifest, which names every photo.
        loss: mean training loss of the epoch's steps.
        learning_rate: at the epoch's last step.
        images_seen: since the start of training.
    """

    epoch: int
    run: str
    trained_on: str
    loss: float
    learning_rate: float
    images_seen: int


@dataclass(frozen=True)
class Measure:
    """One number about an epoch's pictures, with what it is to be held against.

    Args:
        name: what was measured, such as `identity distance`; its unit stands where it is measured, in `stages/grade/`.
        about: which question it answers.
        better: whether `less` or `more` is better, or the `same` as the base model.
        value: None if it could not be measured.
        low, high: ends of its 95 % bootstrap interval over pictures; None under two of them, and of the held-out loss, which is no
            number over pictures: its photos and noise are the same for every epoch.
        base: the same of the base model, the control.
        ceiling: what the training photos reach among themselves, or what else bounds it; None if nothing does.
    """

    name: str
    about: About
    better: Better
    value: float | None
    low: float | None = None
    high: float | None = None
    base: float | None = None
    ceiling: float | None = None

    @property
    def surely_below_base(self) -> bool:
        """Whether it is less than the base model's by more than chance: the whole interval is. Where the base's was not measured, anything is."""
        if self.value is None:
            return False
        return self.base is None or (self.value if self.high is None else self.high) < self.base

    @property
    def told(self) -> str:
        """The value and its interval; empty if it could not be measured."""
        if self.value is None:
            return ""
        between = "" if self.low is None else f" ({self.low:.3g} to {self.high:.3g})"
        return f"{self.value:.3g}{between}"


@dataclass(frozen=True)
class Score(Record):
    """What speaks for and against an epoch (0 is the base model without a LoRA).

    Args:
        epoch: 0 for the base model.
        identity_distance: mean Euclidean distance of the descriptors of the faces in its pictures to the subject's, and where no face
            was found, of what the base model draws there; None if no face was found in any, or for kinds without faces.
        faces_found: share of its pictures in which a face was found, 0 to 1.
        picture_distance: mean distance of its pictures to the training pictures, for kinds without faces; None for a person.
        chosen: whether this is the epoch to release.
        reason: the sentence that says why, or why not.
        measures: everything that was measured, likeness first.
        vetoes: why it may not be chosen, a clause each.
        runner_up: whether it would be chosen if the chosen one were not there.
        picked: whether a person chose it (`grade.pick`).
        advice: of the chosen epoch: whether to train on.
    """

    epoch: int
    identity_distance: float | None
    faces_found: float
    picture_distance: float | None = None
    chosen: bool = False
    reason: str = ""
    measures: tuple[Measure, ...] = ()
    vetoes: tuple[str, ...] = ()
    runner_up: bool = False
    picked: bool = False
    advice: str = ""

    @property
    def role(self) -> str:
        """What became of the epoch, in a word or two; mostly none."""
        if self.chosen:
            return "✓ picked by a person" if self.picked else "✓"
        return "runner-up" if self.runner_up else ""

    @classmethod
    def of(cls, row: Row) -> Self:
        """The score that a row holds. Raises TypeError if the row is of another kind."""
        read = super().of(row)
        told = cast("tuple[Measure | dict[str, Any], ...]", read.measures)
        return replace(read, measures=tuple(Measure(**one) if isinstance(one, dict) else one for one in told))


def _tupled(value: Any) -> Any:
    return tuple(_tupled(item) for item in value) if isinstance(value, list) else value
