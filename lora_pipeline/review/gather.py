"""What there is to look at: photos by verdict, copies, faces, training pictures; read from what the stages left."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lora_pipeline import people, verdicts
from lora_pipeline.flow import REVIEW, Work
from lora_pipeline.manifest import Item, Made, key_of, read, refresh
from lora_pipeline.pictures import open_upright, save
from lora_pipeline.records import Box, Caption, Crop, Quality, Row, Score
from lora_pipeline.records import Photo as Source
from lora_pipeline.stages.crop import decided_faces

FACES = "faces"
FACE_PX = 160
AROUND = 0.4
"""How much of a face's surroundings is shown with it, as a share of its side: without hair and chin people do not know each other."""

State = Literal["used", "left out", "unreadable"]


@dataclass(frozen=True)
class Photo:
    """A photo of the source.

    Args:
        id: its path within the photo folder.
        thumbnail: a small picture of it; None if it cannot be read.
        state: whether training sees anything of it.
        reason: why not; empty for one in use.
        verdict: what a person has decided: `keep`, `drop` or nothing.
        best: id of the best of its copies, itself maybe; empty if it has none.
        facts: what was measured, in words: (what, value).
    """

    id: str
    thumbnail: Path | None
    state: State
    reason: str
    verdict: str
    best: str
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Face:
    """A face in a photo.

    Args:
        id: as in `people.yaml`.
        picture: the face and a little around it.
        whose: as decided last, or a stranger's name if a person gave one.
        by_hand: whether a person said so.
    """

    id: str
    picture: Path
    whose: str
    by_hand: bool


@dataclass(frozen=True)
class Picture:
    """A picture that is trained on, or would be.

    Args:
        id: `photo@framing`.
        photo: id of its photo.
        cut: the crop as it was cut.
        concealed: the same with strangers hidden; None if that stage has not run.
        hidden: how many faces are covered in it.
        caption: its words; empty if none are written yet.
        source: who wrote them.
    """

    id: str
    photo: str
    cut: Path
    concealed: Path | None
    hidden: int
    caption: str
    source: str


def copies(photos: Sequence[Photo]) -> list[list[Photo]]:
    """Groups of copies, the best of each first."""
    groups: dict[str, list[Photo]] = {}
    for photo in photos:
        if photo.best:
            groups.setdefault(photo.best, []).append(photo)
    return [sorted(group, key=lambda one: (one.id != best, one.id)) for best, group in sorted(groups.items())]


def photos(work: Work) -> tuple[Photo, ...]:
    """Every photo of the source, in order of ids. Raises SubjectError if photos.yaml cannot be read."""
    source, curated, cropped = work.made("collect"), work.made("curate"), work.made("crop")
    decided = verdicts.read(work.store.subject(work.subject.name))
    judged = {row.id: row for row in curated.rows}
    cut: dict[str, list[Row]] = {}
    for row in cropped.rows:
        cut.setdefault(str(row.data.get("photo")), []).append(row)
    told: list[Photo] = []
    for row in source.rows:
        state, reason = _standing(row, judged.get(row.id), cut.get(row.id, []))
        quality = Quality.of(judged[row.id]) if row.id in judged and judged[row.id].data else None
        thumbnail = source.path(row, "thumbnail") if "thumbnail" in row.files else None
        best = quality.duplicates if quality else ""
        told.append(Photo(row.id, thumbnail, state, reason, decided.get(row.id, ""), best, _facts(row, quality)))
    return tuple(told)


def _standing(source: Row, judged: Row | None, cut: Sequence[Row]) -> tuple[State, str]:
    for row in (source, judged):
        if row is not None and row.state != "kept":
            return ("unreadable" if row.state == "failed" else "left out"), row.reason
    if cut and all(row.state != "kept" for row in cut):
        return "left out", "; ".join(dict.fromkeys(row.reason for row in cut))
    return "used", ""


def _facts(row: Row, quality: Quality | None) -> tuple[tuple[str, str], ...]:
    if row.state != "kept":
        return ()
    photo = Source.of(row)
    told = [("size", f"{photo.width_px} × {photo.height_px} px"), ("taken", photo.taken or "unknown")]
    if quality:
        told += [
            ("true short side", f"{quality.true_side_px} px"),
            ("sharpness", f"{quality.sharpness:.0f}"),
            ("brightness", f"{quality.brightness:.2f}"),
            ("noise", f"{quality.noise:.1f}"),
            ("JPEG blocks", f"{quality.blocking:.2f}"),
        ]
    return tuple(told)


@dataclass(frozen=True)
class _Cut:
    photo: Path
    boxes: tuple[Box, ...]


_cutting = threading.Lock()  # tabs are filled at once, and one run at a time may work in a folder


def faces(work: Work) -> tuple[Face, ...]:
    """Every face of the photos that go on, in order of ids; each is cut out of its photo once. Raises SubjectError if people.yaml cannot be read."""
    curated = {row.id: Quality.of(row) for row in work.made("curate").kept}
    found = {id: faces for id, faces in decided_faces(work.folder("crop")).items() if id in curated and faces}
    boxes = {id: tuple(face.box for face in faces) for id, faces in found.items()}
    items = [
        Item(id, [curated[id].digest, list(boxes[id]), FACE_PX, AROUND], _Cut(Path(curated[id].path), boxes[id]))
        for id in found
    ]
    with _cutting:
        outcome = refresh(
            work.folder(REVIEW),
            items,
            _cut_faces,
            settings=None,
            code_version="1",
            name=FACES,
            what="cut out faces",
            workers=0,
            progress=work.progress,
        )
    said = people.read(work.store.subject(work.subject.name))
    told: list[Face] = []
    for row in outcome.manifest.kept:
        for number, (id, face) in enumerate(zip(people.face_ids(row.id, boxes[row.id]), found[row.id], strict=True)):
            whose = said.name(id) or said.whose(id) or face.whose
            told.append(Face(id, outcome.manifest.path(row, f"face{number}"), whose, id in said.decisions))
    return tuple(sorted(told, key=lambda one: one.id))


def _cut_faces(cut: _Cut, folder: Path) -> Made:
    picture = open_upright(cut.photo, max_megapixels=float("inf"))
    files: dict[str, str] = {}
    for number, (left, top, right, bottom) in enumerate(cut.boxes):
        around = round(AROUND * max(right - left, bottom - top))
        box = (
            max(0, left - around),
            max(0, top - around),
            min(picture.width, right + around),
            min(picture.height, bottom + around),
        )
        shown = picture.crop(box)
        shown.thumbnail((FACE_PX, FACE_PX))
        files[f"face{number}"] = f"faces/{_name(cut, number)}.jpg"
        save(shown, folder / files[f"face{number}"])
    return Made({}, files)


def _name(cut: _Cut, number: int) -> str:
    return key_of(str(cut.photo), list(cut.boxes[number]))[:16]


def pictures(work: Work) -> tuple[Picture, ...]:
    """Every crop that was made, in order of ids."""
    cropped, concealed, described = work.made("crop"), work.made("conceal"), work.made("describe")
    covered = {row.id: row for row in concealed.kept}
    captions = {row.id: Caption.of(row) for row in described.kept}
    return tuple(
        Picture(
            id=row.id,
            photo=Crop.of(row).photo,
            cut=cropped.path(row),
            concealed=concealed.path(covered[row.id]) if row.id in covered else None,
            hidden=int(str(covered[row.id].data.get("hidden") or 0)) if row.id in covered else 0,
            caption=captions[row.id].text if row.id in captions else "",
            source=captions[row.id].source if row.id in captions else "",
        )
        for row in cropped.kept
    )


def scores(work: Work) -> tuple[Score, ...]:
    """What speaks for and against each epoch, the base model (epoch 0) first; empty before they are judged."""
    return tuple(sorted((Score.of(row) for row in work.made("scores").kept), key=lambda one: one.epoch))


def grids(work: Work) -> dict[str, Path]:
    """By prompt, its picture of all epochs; empty before they are drawn."""
    laid_out = read(work.folder("grids"), "by_prompt")
    return {str(row.data["prompt"]): laid_out.path(row) for row in laid_out.kept}
