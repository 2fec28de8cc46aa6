"""The stage: search, decide, plan, cut."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_pipeline.errors import SubjectError
from lora_pipeline.manifest import Item, Made, Manifest, Outcome, Report, key_of, refresh
from lora_pipeline.people import People
from lora_pipeline.pictures import open_upright, save
from lora_pipeline.progress import Progress, silent
from lora_pipeline.records import Box, Crop, Face, Framing, Kind, Quality, Row, State, Value
from lora_pipeline.settings import CropSettings
from lora_pipeline.stages.crop.framing import Cut, inside, plan
from lora_pipeline.stages.crop.looks import with_looks
from lora_pipeline.stages.crop.search import Searched, SearchSettings, faces_of, find_faces
from lora_pipeline.stages.crop.thing import Things, find_things, with_close
from lora_pipeline.stages.crop.whose import Faces, decide, passers_by, write_decided
from lora_pipeline.store import digest_file

CODE_VERSION = "1"
PICTURES, SUBJECT_MASKS = "crops", "subject_masks"


@dataclass(frozen=True)
class _Task:
    """A row to be made: a crop, or the reason why there is none."""

    photo: Path
    crop: Crop | None
    file: str = ""
    reason: str = ""
    state: State = "dropped"
    data: tuple[tuple[str, Value], ...] = ()
    mask: Path | None = None
    mask_file: str = ""


def crop(
    curated: Manifest,
    folder: Path,
    settings: CropSettings,
    kind: Kind,
    reference: Path | Sequence[Path] | None,
    progress: Progress = silent,
    people: People | None = None,
    class_word: str = "",
) -> Outcome:
    """Find the faces in every kept photo, say which are the subject's, and cut crops at the training size.

    - **person**: crops in `settings.framings` around the subject's face. A photo without it is a dropped row.
    - **pet, product**: the whole picture; where `settings.subject_model` finds the subject, also a close crop about it. Faces are
      searched for all the same: each is a passer-by's, to be hidden.
    - **style**: the whole picture. Faces are part of a style, so none is searched for and none hidden.

    Args:
        curated: rows are `records.Quality`; only kept ones are read.
        folder: the stage's. Row ids are `photo@framing`, data those of `records.Crop`, file roles `picture` (PNG, RGB) and,
            where a segmenter cut the subject out, `subject_mask` (PNG, 8-bit grey, the picture's size: 255 where the subject is).
            Photos that give no crop are rows with the photo's id.
        reference: photos of the subject, to know its face by; the largest face on each counts. Only for a person.
        people: whose face is whose by hand, which wins.
        class_word: what a pet or product is looked for as, if `settings.subject_prompt` is empty.

    Returns:
        The crops; the report counts crops, and its seconds are those of the search too.

    Raises:
        ModelError: the detector's weights are missing.
        SubjectError: a reference photo is missing or no face is found on it.
    """
    people = people or People()
    photos = {row.id: Quality.of(row) for row in curated.kept}
    search = SearchSettings.of(settings)
    found: Faces = {}
    failed: dict[str, str] = {}
    seconds = 0.0
    if kind != "style":
        todo = [
            Searched(
                id, Path(photo.path), photo.digest, photo.trim, search, photo.known_faces if kind == "person" else ()
            )
            for id, photo in photos.items()
        ]
        outcome = find_faces(todo, folder, search, progress=progress)
        seconds = outcome.report.seconds
        found = {row.id: faces_of(row) for row in outcome.manifest.kept}
        failed = {row.id: row.reason for row in outcome.manifest.rows if row.state == "failed"}
    if kind == "person":
        references = [reference] if isinstance(reference, Path) else list(reference or ())
        found = decide(found, settings.same_person_distance, _reference(references, folder, search), people)
        found = with_looks(found, photos, folder, settings, progress)
    else:
        found = passers_by(found, people)
    write_decided(folder, found)
    things: Things | None = None
    if settings.subject_model and kind in ("pet", "product"):
        things = find_things(photos, folder, settings, settings.subject_prompt or class_word, progress)
        seconds += things.seconds

    items = [
        item
        for id, photo in photos.items()
        for item in _items(id, photo, found.get(id, ()), failed.get(id, ""), settings, kind, things)
    ]
    cut = refresh(
        folder,
        items,
        _make,
        settings=None,  # all that is read of them stands in the items' inputs, so another framing cuts no crop again
        code_version=CODE_VERSION,
        what="crop",
        workers=0,
        progress=progress,
    )
    return Outcome(cut.manifest, cut.report + Report(seconds=seconds))


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
        Searched(f"reference {number}" if number else "reference", path, digest_file(path), None, search)
        for number, path in enumerate(paths)
    ]
    manifest = find_faces(photos, folder, search, name="reference").manifest
    descriptors = [_largest(manifest.row(photo.id), photo.path).descriptor for photo in photos]
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


def _items(
    id: str,
    photo: Quality,
    faces: Sequence[Face],
    failed: str,
    settings: CropSettings,
    kind: Kind,
    things: Things | None,
) -> list[Item[_Task]]:
    """All rows of one photo."""
    path = Path(photo.path)
    # By hand, several faces of one photo may be the subject's (a mirror): none is hidden, and the largest is what crops are about.
    subject = max((face for face in faces if face.whose == "subject"), key=_area, default=None)
    others = [face for face in faces if face.whose in ("stranger", "unsure")]
    if failed:
        return [_refused(id, path, failed, "failed")]
    if kind == "person":
        if subject is None:
            return [_refused(id, path, _nobody(others))]
        height = max(subject.box[2] - subject.box[0], subject.box[3] - subject.box[1])
        if height < settings.min_face_px:
            return [
                _refused(
                    id, path, f"the subject's face is {height} px high, at least {settings.min_face_px} are asked for"
                )
            ]
    thing = things.boxes.get(id) if things else None
    if things and thing is None:
        return [_refused(id, path, things.reasons[id])]
    framings: tuple[Framing, ...] = settings.framings if kind == "person" else ("whole",)
    cuts = plan(
        photo.trim,
        subject.box if subject else None,
        framings,
        settings.size_px,
        settings.max_enlargement,
        settings.off_centre,
        int(photo.digest[:8], 16) / 16**8 * 360,
    )
    if things and thing:
        cuts = with_close(cuts, photo.trim, thing, settings)
        return [_item(id, photo, cut, None, others, thing, things.masks.get(id)) for cut in cuts]
    return [_item(id, photo, cut, subject, others) for cut in cuts]


def _nobody(others: Sequence[Face]) -> str:
    """Why a photo does not show the subject."""
    told: list[str] = []
    for whose, plural in (("stranger", "s"), ("unsure", "")):
        if many := sum(face.whose == whose for face in others):
            told.append(f"{many} {whose}{plural if many > 1 else ''}")
    return f"no face of the subject; {', '.join(told)}" if told else "no face found"


def _refused(id: str, path: Path, reason: str, state: State = "dropped") -> Item[_Task]:
    return Item(id, [reason, state], _Task(path, None, reason=reason, state=state, data=(("photo", id),)))


def _item(
    id: str,
    photo: Quality,
    cut: Cut,
    subject: Face | None,
    others: Sequence[Face],
    thing: Box | None = None,
    mask: tuple[Path, str] | None = None,
) -> Item[_Task]:
    boxes = [inside(face.box, cut.region, cut.size_px) for face in others]
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
        thing=inside(thing, cut.region, cut.size_px) if thing else None,
    )
    name = f"{id}@{cut.framing}"
    # The photo's id may hold folders, and two photos of one name in them.
    file = f"{PICTURES}/{Path(id).stem}-{cut.framing}-{key_of(name)[:8]}.png"
    task = _Task(
        Path(photo.path),
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
    picture = open_upright(task.photo).crop(cut.region)
    save(picture.resize((cut.width_px, cut.height_px), Image.Resampling.LANCZOS), folder / task.file)
    if task.mask:
        with Image.open(task.mask) as mask:
            save(mask.crop(cut.region).resize((cut.width_px, cut.height_px)), folder / task.mask_file)
        files["subject_mask"] = task.mask_file
    return Made(cut.data(), files)
