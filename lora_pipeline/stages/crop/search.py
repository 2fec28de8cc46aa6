"""Every face of every kept photo, remembered a photo: the slow part of the stage, which other framings do not repeat."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import SerializerFunctionWrapHandler, model_serializer

from lora_pipeline.manifest import Item, Made, Mapped, Outcome, refresh
from lora_pipeline.models.faces import FaceDetector, identity, open_detector
from lora_pipeline.pictures import open_upright
from lora_pipeline.progress import Progress, silent
from lora_pipeline.records import KNOWN_ONLY, Box, Face, Row
from lora_pipeline.settings import CropSettings, Section
from lora_pipeline.stages.crop.angle import yaw_deg

FACES = "faces"
SEARCH_VERSION = "1"
SAME_FACE = 0.5
"""A box known from elsewhere and a found one that share so much of the smaller's area are one face."""


class SearchSettings(Section):
    """Those of the crop settings that decide which faces are found."""

    detector: str
    yolo_weights: str
    search_px: int
    insightface_models: str = ""

    @classmethod
    def of(cls, settings: CropSettings) -> "SearchSettings":
        """The slice. The weights' file name stays out of the key where it is not read."""
        weights = settings.yolo_weights if settings.detector == "yolo" else ""
        models = settings.insightface_models if settings.detector == "insightface" else ""
        return cls(
            detector=settings.detector, yolo_weights=weights, search_px=settings.search_px, insightface_models=models
        )

    @model_serializer(mode="wrap")
    def _as_it_was(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Where InsightFace is not asked, the key is the one from before it could be: no face is searched for again."""
        told: dict[str, Any] = fields(self)
        return {name: value for name, value in told.items() if name != "insightface_models" or value}

    def whole(self) -> CropSettings:
        """Crop settings with these, as `models.faces` takes them."""
        return CropSettings.model_validate(self.model_dump())


@dataclass(frozen=True, slots=True)
class Searched:
    """A photo to search, as plain data that can go to another process.

    Args:
        id: the photo's.
        path, digest: its file, and what must be in it.
        trim: where to look, pixels of the upright photo; None is everywhere.
        known: where the photo library says that the subject's face is, pixels of the upright photo.
    """

    id: str
    path: str
    digest: str
    trim: Box | None
    settings: SearchSettings
    known: tuple[Box, ...] = ()


def find_faces(
    photos: Iterable[Searched], folder: Path, settings: SearchSettings, name: str = FACES, progress: Progress = silent
) -> Outcome:
    """The faces of each photo: a row a photo, `faces` a list of `Face` data, whose still unsure. The photos are asked for twice.

    A face that the photo library knows is the one that the detector found there; where it found none, it is one of its own.

    The key of a row is made of the photo's digest, its trim, the faces known of it, the detector's weights and `settings`.
    """
    detector = identity(settings.whole())

    def item(photo: Searched) -> Item[Searched]:
        trim = list(photo.trim) if photo.trim else None
        # Nothing is told where nothing is known: a photo of a folder has the key that it has always had.
        known = [list(photo.known)] if photo.known else []
        return Item(photo.id, [photo.digest, trim, detector, *known], photo)

    return refresh(
        folder,
        Mapped(item, photos),
        _search,
        settings=settings,
        code_version=SEARCH_VERSION,
        name=name,
        what="search faces",
        workers=0,
        processes=True,
        progress=progress,
    )


def faces_of(row: Row) -> tuple[Face, ...]:
    """The faces that a row of `faces` or `decided` holds."""
    found = row.data.get("faces")
    listed = found if isinstance(found, list) else []
    return tuple(Face.of(Row(row.id, "", data=data)) for data in listed if isinstance(data, dict))


@cache
def _detector(settings: str) -> FaceDetector:
    """One a process, whatever the number of photos; `settings` is a `SearchSettings` as JSON."""
    return open_detector(SearchSettings.model_validate_json(settings).whole())


def _search(photo: Searched, _: Path) -> Made:
    detector = _detector(photo.settings.model_dump_json())
    picture = open_upright(Path(photo.path))
    left, top = 0, 0
    if photo.trim:
        picture, (left, top) = picture.crop(photo.trim), photo.trim[:2]
    known = [box for face in photo.known if (box := _moved(face, left, top, picture.size))]
    found = detector.find(picture, photo.settings.search_px)
    meant: set[int] = set()
    for box in known:
        # Two boxes of one face, of which a library may well have some, find the first one's.
        number = _at(box, [face.box for face in found])
        if number is None:
            number = len(found)
            found.append(detector.located(picture, box, KNOWN_ONLY))
        meant.add(number)
    faces = [
        Face(
            photo=photo.id,
            box=(face.box[0] + left, face.box[1] + top, face.box[2] + left, face.box[3] + top),
            confidence=round(face.confidence, 3),
            landmarks=tuple((round(x + left, 2), round(y + top, 2)) for x, y in face.landmarks),
            descriptor=tuple(round(number, 5) for number in detector.describe(picture, face)),
            yaw_deg=yaw_deg(face.landmarks),
            known=number in meant,
        )
        for number, face in enumerate(found)
    ]
    return Made({"faces": [face.data() for face in faces]})


def _moved(box: Box, left: int, top: int, size: tuple[int, int]) -> Box | None:
    """A box of the photo in the pixels of its trimmed picture, cut to it; None if nothing of it is left."""
    cut = (max(0, box[0] - left), max(0, box[1] - top), min(size[0], box[2] - left), min(size[1], box[3] - top))
    return cut if cut[0] < cut[2] and cut[1] < cut[3] else None


def _at(known: Box, boxes: Sequence[Box]) -> int | None:
    """Which box is meant: of those that share at least half of the smaller of the two, the one that shares the most.

    Not the IoU: one program's box of a face is its features, another's the whole head.
    """
    shared = [_shared(known, box) for box in boxes]
    same = [number for number, box in enumerate(boxes) if shared[number] >= SAME_FACE * min(_area(known), _area(box))]
    return max(same, key=lambda number: shared[number], default=None)


def _shared(one: Box, other: Box) -> int:
    across, down = min(one[2], other[2]) - max(one[0], other[0]), min(one[3], other[3]) - max(one[1], other[1])
    return max(0, across) * max(0, down)


def _area(box: Box) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])
