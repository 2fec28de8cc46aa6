"""The stage: search, decide, plan, measure, choose, cut, count."""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lora_pipeline.errors import SubjectError
from lora_pipeline.manifest import Item, Made, Manifest, Mapped, Outcome, Report, is_planning, key_of, read, refresh
from lora_pipeline.people import People
from lora_pipeline.pictures import open_upright, save
from lora_pipeline.progress import Progress, silent
from lora_pipeline.records import KNOWN_ONLY, Box, Crop, Face, Framing, Kind, Quality, Row, State, Value
from lora_pipeline.settings import CropSettings
from lora_pipeline.stages.crop.choice import Candidate, choose
from lora_pipeline.stages.crop.coverage import Coverage, cover, level, shares, shown, yaw_cell
from lora_pipeline.stages.crop.framing import Cut, Placing, Size, inside, plan
from lora_pipeline.stages.crop.looks import with_looks
from lora_pipeline.stages.crop.persons import NOBODY, Persons, find_persons, persons_of
from lora_pipeline.stages.crop.search import Searched, SearchSettings, faces_of, find_faces
from lora_pipeline.stages.crop.shot import SHOTS, Pictured, Shot, measure_shots
from lora_pipeline.stages.crop.thing import Things, find_things, with_close
from lora_pipeline.stages.crop.whose import Faces, decide, decided_faces, passers_by, write_decided
from lora_pipeline.store import digest_file

CODE_VERSION = "1"
PICTURES, SUBJECT_MASKS = "crops", "subject_masks"


class _Photos(Mapping[str, Quality]):
    """The photos that are kept, by id; each is read when it is asked for, and not remembered."""

    def __init__(self, curated: Manifest) -> None:
        self.rows = {row.id: row for row in curated.kept}

    def __getitem__(self, id: str) -> Quality:
        return Quality.of(self.rows[id])

    def __iter__(self) -> Iterator[str]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class _Task:
    """A row to be made: a crop, or the reason why there is none."""

    photo: str
    crop: Crop | None
    file: str = ""
    reason: str = ""
    state: State = "dropped"
    data: tuple[tuple[str, Value], ...] = ()
    mask: Path | None = None
    mask_file: str = ""


@dataclass(frozen=True)
class _Planned:
    """A photo with what is to be cut out of it, or the reason why nothing is."""

    photo: Quality
    subject: Face | None
    others: tuple[Face, ...]
    cuts: tuple[Cut, ...] = ()
    refused: str = ""
    state: State = "dropped"
    thing: Box | None = None
    mask: tuple[Path, str] | None = None  # see `Things.masks`
    persons: Persons = NOBODY


def crop(
    curated: Manifest,
    folder: Path,
    settings: CropSettings,
    kind: Kind,
    reference: Path | Sequence[Path] | None,
    progress: Progress = silent,
    buckets: Sequence[Size] = (),
    people: People | None = None,
    class_word: str = "",
) -> Outcome:
    """Find the faces in every kept photo, say which are the subject's, and cut crops at the training size.

    - **person**: crops in `settings.framings` around the subject's face. A photo without it is a dropped row. Where
      `settings.yolo_person_weights` finds people, a full crop shows the one whose face it is from head to feet.
    - **pet, product**: the whole picture; where `settings.subject_model` finds the subject, also a close crop about it. Faces are
      searched for all the same: each is a passer-by's, to be hidden.
    - **style**: the whole picture. Faces are part of a style, so none is searched for and none hidden.

    Where fewer pictures are wanted than can be cut (`settings.framing_shares`, `settings.best`), `choice.choose` says which; the others
    are dropped rows. What the pictures show is counted in `coverage.json`.

    Args:
        curated: rows are `records.Quality`; only kept ones are read.
        folder: the stage's. Row ids are `photo@framing`, data those of `records.Crop`, file roles `picture` (PNG, RGB) and,
            where a segmenter cut the subject out, `subject_mask` (PNG, 8-bit grey, the picture's size: 255 where the subject is).
            Photos that give no crop are rows with the photo's id.
        reference: photos of the subject, to know its face by; the largest face on each counts. Only for a person.
        buckets: sizes (width, height) of which each crop takes one, if `settings.shape` says so.
        people: whose face is whose by hand, which wins.
        class_word: what a pet or product is looked for as, if `settings.subject_prompt` is empty.

    Returns:
        The crops; the report counts crops, and its seconds are those of the search too.

    Raises:
        ModelError: the detector's weights are missing.
        SubjectError: a reference photo is missing or no face is found on it.
    """
    people = people or People()
    photos = _Photos(curated)
    search = SearchSettings.of(settings)
    found, failed, seconds = _searched(photos, folder, search, kind, progress)
    if kind == "person":
        references = [reference] if isinstance(reference, Path) else list(reference or ())
        found = decide(found, settings.same_person_distance, _reference(references, folder, search), people)
        found = with_looks(found, photos, folder, settings, progress)
    else:
        found = passers_by(found, people)
    write_decided(folder, found)
    # Most of what is remembered of a photo are its faces' descriptors, which nobody below asks for.
    found = {id: tuple(replace(face, descriptor=()) for face in faces) for id, faces in found.items()}
    persons: dict[str, Persons] = {}
    if kind == "person" and settings.yolo_person_weights:
        boxes, took = find_persons(photos, folder, settings, progress)
        persons = {id: persons_of(found.get(id, ()), boxes.get(id, ())) for id in photos}
        seconds += took

    shapes = buckets if settings.shape == "bucket" else ()
    planned = {
        id: _planned(photo, found.get(id, ()), persons.get(id, NOBODY), failed.get(id, ""), settings, kind, shapes)
        for id, photo in photos.items()
    }
    if settings.subject_model and kind in ("pet", "product"):
        things = find_things(photos, folder, settings, settings.subject_prompt or class_word, progress)
        planned = {id: _about_thing(id, one, things, settings) for id, one in planned.items()}
        seconds += things.seconds
    measured = measure_shots(
        {
            id: Pictured(one.photo.path, one.photo.digest, one.photo.trim, one.subject.box if one.subject else None)
            for id, one in planned.items()
            if one.cuts
        },
        folder,
        progress,
    )
    shots = {row.id: Shot.of(row) for row in measured.manifest.kept}
    planned = {id: _sharp(one, shots.get(id), settings.min_face_sharpness) for id, one in planned.items()}
    level_deg = level(one.subject for one in planned.values() if one.subject)
    candidates = [
        _candidate(id, one, cut, shots[id], level_deg)
        for id, one in planned.items()
        if id in shots
        for cut in one.cuts
        if not cut.reason
    ]
    left_out = choose(candidates, settings.best, shares(settings), settings.coverage)
    cut = refresh(
        folder,
        (item for id, one in planned.items() for item in _items(id, one, left_out)),
        _make,
        settings=None,  # all that is read of them stands in the items' inputs, so another framing cuts no crop again
        code_version=CODE_VERSION,
        what="crop",
        workers=0,
        progress=progress,
    )
    if not is_planning():
        cover(cut.manifest, _subjects(found), shots, settings).save(folder)
    return Outcome(cut.manifest, cut.report + Report(seconds=seconds + measured.report.seconds))


def coverage(folder: Path, settings: CropSettings) -> Coverage:
    """What the crops show that the stage last made, and what is missing of the plan as it is now; nothing if it has not run."""
    shots = {row.id: Shot.of(row) for row in read(folder, SHOTS).kept}
    return cover(read(folder), _subjects(decided_faces(folder)), shots, settings)


def _subjects(faces: Faces) -> dict[str, Face]:
    """The subject's face, of several the largest, of each photo that shows one."""
    largest = {id: _subject(found) for id, found in faces.items()}
    return {id: face for id, face in largest.items() if face}


def _subject(faces: Sequence[Face]) -> Face | None:
    return max((face for face in faces if face.whose == "subject"), key=_area, default=None)


def _searched(
    photos: Mapping[str, Quality], folder: Path, search: SearchSettings, kind: Kind, progress: Progress
) -> tuple[Faces, dict[str, str], float]:
    """The faces of each photo, why a photo could not be searched, and the seconds that it took."""
    if kind == "style":
        return {}, {}, 0.0

    def searched(id: str) -> Searched:
        photo = photos[id]
        known = photo.known_faces if kind == "person" else ()
        return Searched(id, photo.path, photo.digest, photo.trim, search, known)

    outcome = find_faces(Mapped(searched, photos), folder, search, progress=progress)
    # Descriptors as arrays: a tuple's numbers take four times the memory.
    found = {
        row.id: tuple(replace(face, descriptor=array("d", face.descriptor)) for face in faces_of(row))
        for row in outcome.manifest.kept
    }
    failed = {row.id: row.reason for row in outcome.manifest.rows if row.state == "failed"}
    return found, failed, outcome.report.seconds


def _reference(paths: Sequence[Path], folder: Path, search: SearchSettings) -> tuple[float, ...] | None:
    """The mean descriptor of the largest faces of the reference photos; None if there are none."""
    for path in paths:
        if not path.is_file():
            raise SubjectError(
                f"the reference photo {path} is not there; mend `reference` in subject.yaml, or take it out"
            )
    if not paths:
        return None
    photos = [
        Searched(f"reference {number}" if number else "reference", str(path), digest_file(path), None, search)
        for number, path in enumerate(paths)
    ]
    manifest = find_faces(photos, folder, search, name="reference").manifest
    descriptors = [_largest(manifest.row(photo.id), Path(photo.path)).descriptor for photo in photos]
    return tuple(sum(numbers) / len(numbers) for numbers in zip(*descriptors, strict=True))


def _largest(row: Row, path: Path) -> Face:
    if row.state == "failed":
        raise SubjectError(f"the reference photo {path} cannot be used: {row.reason}")
    faces = faces_of(row)
    if not faces:
        raise SubjectError(
            f"no face is found on the reference photo {path}; name another as `reference` in subject.yaml"
        )
    return max(faces, key=_area)


def _area(face: Face) -> int:
    return (face.box[2] - face.box[0]) * (face.box[3] - face.box[1])


def _planned(
    photo: Quality,
    faces: Sequence[Face],
    persons: Persons,
    failed: str,
    settings: CropSettings,
    kind: Kind,
    shapes: Sequence[Size],
) -> _Planned:
    subject = _subject(faces)
    # By hand, several faces of one photo may be the subject's (a mirror): none is hidden, and the largest is what crops are about.
    others = tuple(face for face in faces if face.whose in ("stranger", "unsure"))
    if failed:
        return _Planned(photo, subject, others, refused=failed, state="failed")
    if kind == "person":
        if subject is None:
            return _Planned(photo, None, others, refused=_nobody(others, persons.unseen))
        height = max(subject.box[2] - subject.box[0], subject.box[3] - subject.box[1])
        if height < settings.min_face_px:
            words = f"the subject's face is {height} px high, at least {settings.min_face_px} are asked for"
            return _Planned(photo, subject, others, refused=words)
    framings: tuple[Framing, ...] = settings.framings if kind == "person" else ("whole",)
    placing = Placing(
        settings.off_centre,
        int(photo.digest[:8], 16) / 16**8 * 360,
        settings.placement == "thirds",
        subject.yaw_deg if subject else 0.0,
        tuple(face.box for face in others) if settings.avoid_others else (),
        photo.text_boxes if settings.avoid_others else (),
        persons.subject,
        persons.others if settings.avoid_others else (),
    )
    cuts = plan(
        photo.trim,
        subject.box if subject else None,
        framings,
        settings.size_px,
        settings.max_enlargement,
        placing,
        shapes,
    )
    return _Planned(photo, subject, others, tuple(cuts), persons=persons)


def _nobody(others: Sequence[Face], unseen: int) -> str:
    """Why a photo does not show the subject; `unseen` are people whose faces are not seen."""
    told: list[str] = []
    for whose, plural in (("stranger", "s"), ("unsure", "")):
        if many := sum(face.whose == whose for face in others):
            told.append(f"{many} {whose}{plural if many > 1 else ''}")
    if unseen:
        told.append(f"{unseen} {'people' if unseen > 1 else 'person'} whose face is not seen")
    return f"no face {'of the subject' if others else 'found'}{'; ' if told else ''}{', '.join(told)}"


def _about_thing(id: str, one: _Planned, things: Things, settings: CropSettings) -> _Planned:
    """The same, with a close cut about the thing, or refused because it was not found."""
    if one.refused:
        return one
    thing = things.boxes.get(id)
    if thing is None:
        return replace(one, cuts=(), refused=things.reasons[id])
    cuts = with_close(one.cuts, one.photo.trim, thing, settings)
    return replace(one, cuts=tuple(cuts), thing=thing, mask=things.masks.get(id))


def _sharp(one: _Planned, shot: Shot | None, least: float) -> _Planned:
    """The same, or refused for a face that is out of focus. Of a face that the detector did not find there may be only hair to see."""
    if shot is None or one.subject is None or one.subject.confidence == KNOWN_ONLY or shot.sharpness >= least:
        return one
    words = f"the subject's face is blurred: its sharpness is {shot.sharpness:g}, at least {least:g} is asked for"
    return replace(one, cuts=(), refused=words)


def _candidate(id: str, one: _Planned, cut: Cut, shot: Shot, level_deg: float) -> Candidate:
    subject = one.subject
    yaw = subject.yaw_deg if subject and subject.confidence != KNOWN_ONLY else None
    return Candidate(
        f"{id}@{cut.framing}",
        id,
        cut.framing,
        (cut.framing, *shown(subject, shot, level_deg)),
        cut.framing if yaw is None else f"{cut.framing}, {yaw_cell(yaw)}",
        yaw,
        cut.size_px[0] / (cut.region[2] - cut.region[0]),
        shot,
    )


def _items(id: str, one: _Planned, left_out: Mapping[str, str]) -> list[Item[_Task]]:
    """All rows of one photo."""
    if one.refused:
        task = _Task(one.photo.path, None, reason=one.refused, state=one.state, data=(("photo", id),))
        return [Item(id, [one.refused, one.state], task)]
    return [
        _item(id, one.photo, replace(cut, reason=cut.reason or left_out.get(f"{id}@{cut.framing}", "")), one)
        for cut in one.cuts
    ]


def _item(id: str, photo: Quality, cut: Cut, one: _Planned) -> Item[_Task]:
    subject, others, mask, body = one.subject, one.others, one.mask, one.persons.subject
    boxes = [inside(face.box, cut.region, cut.size_px) for face in others]
    persons = [inside(box, cut.region, cut.size_px) for box in one.persons.others]
    crop = Crop(
        photo=id,
        framing=cut.framing,
        region=cut.region,
        width_px=cut.size_px[0],
        height_px=cut.size_px[1],
        face=inside(subject.box, cut.region, cut.size_px) if subject else None,
        strangers=tuple(sorted(box for box in boxes if box)),
        yaw_deg=subject.yaw_deg if subject else None,
        photo_digest=photo.digest,
        tags=photo.tags,
        pitch_deg=subject.pitch_deg if subject else None,
        roll_deg=subject.roll_deg if subject else None,
        expression=subject.expression if subject else (),
        thing=inside(one.thing, cut.region, cut.size_px) if one.thing else None,
        body=inside(body, cut.region, cut.size_px) if body else None,
        persons=tuple(sorted(box for box in persons if box)),
    )
    name = f"{id}@{cut.framing}"
    # No photo's own name in what is made of it: it may be a person's, a place or a day.
    file = f"{PICTURES}/{key_of(name)[:16]}-{cut.framing}.png"
    task = _Task(
        photo.path,
        crop,
        file,
        cut.reason,
        data=(("photo", id), ("framing", cut.framing)),
        mask=mask[0] if mask else None,
        mask_file=f"{SUBJECT_MASKS}/{Path(file).name}",
    )
    return Item(name, [photo.digest, crop.data(), cut.reason, *([mask[1]] if mask else [])], task)


def _make(task: _Task, folder: Path) -> Made:
    if task.crop is None or task.reason:
        return Made(dict(task.data), state=task.state, reason=task.reason)
    from PIL import Image

    cut, files = task.crop, {"picture": task.file}
    picture = open_upright(Path(task.photo)).crop(cut.region)
    save(picture.resize((cut.width_px, cut.height_px), Image.Resampling.LANCZOS), folder / task.file)
    if task.mask:
        with Image.open(task.mask) as mask:
            save(mask.crop(cut.region).resize((cut.width_px, cut.height_px)), folder / task.mask_file)
        files["subject_mask"] = task.mask_file
    return Made(cut.data(), files)
