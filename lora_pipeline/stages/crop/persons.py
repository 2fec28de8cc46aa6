"""Who stands where, face seen or not: people found whole, remembered a photo, and which of them is the subject."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lora_pipeline.manifest import Item, Made, read, refresh
from lora_pipeline.models.persons import PersonDetector, open_person_detector
from lora_pipeline.pictures import open_upright
from lora_pipeline.progress import Progress
from lora_pipeline.records import Box, Face, Quality
from lora_pipeline.settings import CropSettings
from lora_pipeline.stages.crop.whose import Faces, decided_faces

PERSONS = "persons"
PERSONS_VERSION = "1"

HOLDS = 0.7
"""A person's box that holds less of a face is not the one whose face it is."""
UNDER_THE_TOP = 1.0
"""From the middle of the upper edge of a person's box the face's top is so many of its sides away, or less: hair, a hat, a leaning head."""
ONCE_MORE = 0.8
"""A box without a face that lies with so much of its area in that of a person with one is most often that person's half, found once more."""


@dataclass(frozen=True)
class Persons:
    """The people of one photo, pixels of the upright photo.

    Args:
        subject: the subject, whole; None if the face lies in nobody's box.
        others: all others, whole.
        unseen: how many of the others show no face: seen from behind, turned away, hidden.
    """

    subject: Box | None = None
    others: tuple[Box, ...] = ()
    unseen: int = 0


NOBODY = Persons()


def find_persons(
    photos: Mapping[str, Quality], folder: Path, settings: CropSettings, progress: Progress
) -> tuple[dict[str, tuple[Box, ...]], float]:
    """Everybody on each photo: a photo's id → boxes, surest first; and the seconds it took. Raises ModelError if the weights are missing."""
    weights = settings.yolo_person_weights
    identity = open_person_detector(weights).identity
    items = (
        Item(
            id,
            [photo.digest, list(photo.trim), identity, settings.search_px],
            _Sought(photo.path, photo.trim, weights, settings.search_px),
        )
        for id, photo in photos.items()
    )
    outcome = refresh(
        folder,
        items,
        _find,
        settings=None,
        code_version=PERSONS_VERSION,
        name=PERSONS,
        what="look for people",
        workers=0,
        processes=True,
        progress=progress,
    )
    return _boxes(folder), outcome.report.seconds


def persons_of(faces: Sequence[Face], boxes: Sequence[Box]) -> Persons:
    """Which box is the subject's, which are others', and who of them shows no face.

    Each face is given the box in which it lies as a face does, at the top and in the middle, no box to two faces (the assignment
    of the least sum of distances), of several such the largest. So a child in front of its mother keeps its box, and somebody whose
    upper half is found too is still whole.
    """
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    seen = [face for face in faces if face.whose != "not_a_face"]
    far = np.array([[_distance(face.box, box) for box in boxes] for face in seen]).reshape(len(seen), len(boxes))
    # What does not hold the face is no choice, but the assignment wants a number for it.
    rows, columns = linear_sum_assignment(np.where(np.isfinite(far), far, 1e6))
    owner = {int(column): seen[row] for row, column in zip(rows, columns, strict=True) if np.isfinite(far[row, column])}
    with_face = [boxes[number] for number in owner]
    unseen = [
        box
        for number, box in enumerate(boxes)
        if number not in owner and all(_shared(box, other) < ONCE_MORE * _area(box) for other in with_face)
    ]
    # By hand, several faces may be the subject's (a mirror): the largest is what crops are about.
    subject = max((face for face in seen if face.whose == "subject"), key=lambda face: _area(face.box), default=None)
    body = next((boxes[number] for number, face in owner.items() if face is subject), None)
    others = [boxes[number] for number, face in owner.items() if face.whose != "subject"]
    return Persons(body, tuple(sorted([*others, *unseen])), len(unseen))


def unseen_persons(folder: Path) -> dict[str, int]:
    """Photo id → how many people on it show no face, as the stage last found; photos without such are left out."""
    faces: Faces = decided_faces(folder)
    told = {id: persons_of(faces.get(id, ()), boxes).unseen for id, boxes in _boxes(folder).items()}
    return {id: many for id, many in told.items() if many}


def _boxes(folder: Path) -> dict[str, tuple[Box, ...]]:
    found: dict[str, tuple[Box, ...]] = {}
    for row in read(folder, PERSONS).kept:
        told = row.data["persons"]
        assert isinstance(told, list)
        found[row.id] = tuple((box[0], box[1], box[2], box[3]) for box, _ in told)
    return found


def _distance(face: Box, box: Box) -> float:
    """How far a face's top is from where it would lie in a box, in sides of the face; infinite if the box does not hold it."""
    if _shared(face, box) < HOLDS * _area(face):
        return float("inf")
    across = (face[0] + face[2] - box[0] - box[2]) / 2
    away = (across**2 + (face[1] - box[1]) ** 2) ** 0.5 / max(face[2] - face[0], face[3] - face[1])
    larger_first = 1e-3 * _area(face) / _area(box)
    return max(0.0, away - UNDER_THE_TOP) + larger_first


def _shared(one: Box, other: Box) -> int:
    across, down = min(one[2], other[2]) - max(one[0], other[0]), min(one[3], other[3]) - max(one[1], other[1])
    return max(0, across) * max(0, down)


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


@dataclass(frozen=True)
class _Sought:
    """A photo to search, as plain data that can go to another process."""

    photo: str
    trim: Box
    weights: str
    search_px: int


@cache
def _detector(weights: str) -> PersonDetector:
    """One a process, whatever the number of photos."""
    return open_person_detector(weights)


def _find(sought: _Sought, _: Path) -> Made:
    x, y = sought.trim[:2]
    finds = _detector(sought.weights).find(open_upright(Path(sought.photo)).crop(sought.trim), sought.search_px)
    return Made(
        {
            "persons": [
                [[left + x, top + y, right + x, bottom + y], score] for (left, top, right, bottom), score in finds
            ]
        }
    )
