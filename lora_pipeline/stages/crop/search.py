"""Every face of every kept photo, remembered a photo: the slow part of the stage, which other framings do not repeat."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lora_pipeline.manifest import Item, Made, Outcome, refresh
from lora_pipeline.models.faces import FaceDetector, identity, open_detector
from lora_pipeline.pictures import open_upright
from lora_pipeline.progress import Progress, silent
from lora_pipeline.records import Box, Face, Row
from lora_pipeline.settings import CropSettings, Section
from lora_pipeline.stages.crop.angle import yaw_deg

FACES = "faces"
SEARCH_VERSION = "1"
WORTH_PROCESSES = 8
"""From so many photos on, starting a process a core costs less than it saves."""


class SearchSettings(Section):
    """Those of the crop settings that decide which faces are found."""

    detector: str
    yolo_weights: str
    search_px: int

    @classmethod
    def of(cls, settings: CropSettings) -> "SearchSettings":
        """The slice. The weights' file name stays out of the key where it is not read."""
        weights = settings.yolo_weights if settings.detector == "yolo" else ""
        return cls(detector=settings.detector, yolo_weights=weights, search_px=settings.search_px)

    def whole(self) -> CropSettings:
        """Crop settings with these, as `models.faces` takes them."""
        return CropSettings.model_validate(self.model_dump())


@dataclass(frozen=True)
class Searched:
    """A photo to search, as plain data that can go to another process.

    Args:
        id: the photo's.
        path, digest: its file, and what must be in it.
        trim: where to look, pixels of the upright photo; None is everywhere.
    """

    id: str
    path: Path
    digest: str
    trim: Box | None
    settings: SearchSettings


def find_faces(
    photos: Sequence[Searched], folder: Path, settings: SearchSettings, name: str = FACES, progress: Progress = silent
) -> Outcome:
    """The faces of each photo: a row a photo, `faces` a list of `Face` data, whose still unsure.

    The key of a row is made of the photo's digest, its trim, the detector's weights and `settings`.
    """
    detector = identity(settings.whole())
    items = [
        Item(photo.id, [photo.digest, list(photo.trim) if photo.trim else None, detector], photo) for photo in photos
    ]
    return refresh(
        folder,
        items,
        _search,
        settings=settings,
        code_version=SEARCH_VERSION,
        name=name,
        what="search faces",
        workers=0 if len(items) > WORTH_PROCESSES else 1,
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
    picture = open_upright(photo.path)
    left, top = 0, 0
    if photo.trim:
        picture, (left, top) = picture.crop(photo.trim), photo.trim[:2]
    faces = [
        Face(
            photo=photo.id,
            box=(found.box[0] + left, found.box[1] + top, found.box[2] + left, found.box[3] + top),
            confidence=round(found.confidence, 3),
            landmarks=tuple((round(x + left, 2), round(y + top, 2)) for x, y in found.landmarks),
            descriptor=tuple(round(number, 5) for number in detector.describe(picture, found)),
            yaw_deg=yaw_deg(found.landmarks),
        )
        for found in detector.find(picture, photo.settings.search_px)
    ]
    return Made({"faces": [face.data() for face in faces]})
