"""The stage: search, decide, plan, cut."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lora_pipeline.errors import SubjectError
from lora_pipeline.manifest import Item, Made, Manifest, Outcome, Report, key_of, refresh
from lora_pipeline.pictures import open_upright, save
from lora_pipeline.progress import Progress, silent
from lora_pipeline.records import Crop, Face, Framing, Kind, Quality, State, Value
from lora_pipeline.settings import CropSettings
from lora_pipeline.stages.crop.framing import Cut, inside, plan
from lora_pipeline.stages.crop.search import Searched, SearchSettings, faces_of, find_faces
from lora_pipeline.stages.crop.whose import Faces, decide, write_decided
from lora_pipeline.store import digest_file

CODE_VERSION = "1"
PICTURES = "crops"


@dataclass(frozen=True)
class _Task:
    """A row to be made: a crop, or the reason why there is none."""

    photo: Path
    crop: Crop | None
    file: str = ""
    reason: str = ""
    state: State = "dropped"
    data: tuple[tuple[str, Value], ...] = ()


def crop(
    curated: Manifest,
    folder: Path,
    settings: CropSettings,
    kind: Kind,
    reference: Path | None,
    progress: Progress = silent,
) -> Outcome:
    """Find the faces in every kept photo, say which are the subject's, and cut crops at the training size.

    - **person**: crops in `settings.framings` around the subject's face. A photo without it is a dropped row.
    - **pet, product**: the whole picture. Faces are searched for all the same: each is a passer-by's, to be hidden.
    - **style**: the whole picture. Faces are part of a style, so none is searched for and none hidden.

    Args:
        curated: rows are `records.Quality`; only kept ones are read.
        folder: the stage's. Row ids are `photo@framing`, data those of `records.Crop`, file role `picture` (PNG, RGB). Photos
            that give no crop are rows with the photo's id.
        reference: a photo of the subject, to know its face by; the largest face on it counts. Only for a person.

    Returns:
        The crops; the report counts crops, and its seconds are those of the search too.

    Raises:
        ModelError: the detector's weights are missing.
        SubjectError: the reference photo is missing or no face is found on it.
    """
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
        descriptor = None if reference is None else _reference(reference, folder, search)
        found = decide(found, settings.same_person_distance, descriptor)
    else:
        found = {id: tuple(replace(face, whose="stranger") for face in faces) for id, faces in found.items()}
    write_decided(folder, found)

    items = [
        item
        for id, photo in photos.items()
        for item in _items(id, photo, found.get(id, ()), failed.get(id, ""), settings, kind)
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


def _reference(path: Path, folder: Path, search: SearchSettings) -> tuple[float, ...]:
    if not path.is_file():
        raise SubjectError(f"the reference photo {path} is not there; mend `reference` in subject.yaml, or take it out")
    photo = Searched("reference", path, digest_file(path), None, search)
    row = find_faces([photo], folder, search, name="reference").manifest.rows[0]
    if row.state == "failed":
        raise SubjectError(f"the reference photo {path} cannot be used: {row.reason}")
    faces = faces_of(row)
    if not faces:
        raise SubjectError(
            f"no face is found on the reference photo {path}; name another as `reference` in subject.yaml"
        )
    largest = max(faces, key=lambda face: (face.box[2] - face.box[0]) * (face.box[3] - face.box[1]))
    return largest.descriptor


def _items(
    id: str, photo: Quality, faces: Sequence[Face], failed: str, settings: CropSettings, kind: Kind
) -> list[Item[_Task]]:
    """All rows of one photo."""
    path = Path(photo.path)
    subject = next((face for face in faces if face.whose == "subject"), None)
    others = [face for face in faces if face is not subject]
    if failed:
        return [_refused(id, path, failed, "failed")]
    if kind == "person":
        if subject is None:
            many = f"{len(others)} stranger{'s' if len(others) > 1 else ''}"
            return [_refused(id, path, f"no face of the subject; {many}" if others else "no face found")]
        height = max(subject.box[2] - subject.box[0], subject.box[3] - subject.box[1])
        if height < settings.min_face_px:
            return [
                _refused(
                    id, path, f"the subject's face is {height} px high, at least {settings.min_face_px} are asked for"
                )
            ]
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
    return [_item(id, photo, cut, subject, others) for cut in cuts]


def _refused(id: str, path: Path, reason: str, state: State = "dropped") -> Item[_Task]:
    return Item(id, [reason, state], _Task(path, None, reason=reason, state=state, data=(("photo", id),)))


def _item(id: str, photo: Quality, cut: Cut, subject: Face | None, others: Sequence[Face]) -> Item[_Task]:
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
    )
    name = f"{id}@{cut.framing}"
    # No photo's own name in what is made of it: it may be a person's, a place or a day.
    file = f"{PICTURES}/{key_of(name)[:16]}-{cut.framing}.png"
    task = _Task(Path(photo.path), crop, file, cut.reason, data=(("photo", id), ("framing", cut.framing)))
    return Item(name, [photo.digest, crop.data(), cut.reason], task)


def _make(task: _Task, folder: Path) -> Made:
    if task.crop is None or task.reason:
        return Made(dict(task.data), state=task.state, reason=task.reason)
    from PIL import Image

    cut = task.crop
    picture = open_upright(task.photo).crop(cut.region)
    save(picture.resize((cut.width_px, cut.height_px), Image.Resampling.LANCZOS), folder / task.file)
    return Made(cut.data(), {"picture": task.file})
