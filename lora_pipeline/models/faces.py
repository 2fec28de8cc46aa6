"""Finding faces and telling whose they are: one written protocol, behind which stand dlib (the default), YOLO and InsightFace.

Coordinates are pixels of the picture that was handed in: x to the right, y down, (left, top, right, bottom) with right and
bottom exclusive.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lora_pipeline.records import Box
from lora_pipeline.settings import CropSettings
from lora_pipeline.store import digest_bytes, digest_file

if TYPE_CHECKING:
    from PIL.Image import Image

Points = tuple[tuple[float, float], ...]

EMBEDDED_PX = 512
"""Long side at which `face_reader` looks for the one face of a small picture."""

FACES_VERSION = "1"
"""Raised by hand when the code in this folder finds or describes faces differently."""


@dataclass(frozen=True)
class Found:
    """One face in one picture.

    Args:
        box: around the face, brow to chin, never outside the picture.
        confidence: the detector's own score; its scale differs by detector.
        landmarks: outer and inner corner of the eye at the picture's right, the same of the eye at its left, base of the nose.
            Those of a face cut by the picture's edge may lie outside it.
    """

    box: Box
    confidence: float
    landmarks: Points


class FaceDetector(Protocol):
    """What the pipeline asks of a face detector. Opening one is cheap: weights are read when the first picture comes."""

    @property
    def name(self) -> str:
        """The setting's word for it, such as dlib_hog."""
        ...

    @property
    def weights(self) -> tuple[Path, ...]:
        """Every file that decides what is found and how it is described."""
        ...

    def find(self, picture: "Image", search_px: int) -> list[Found]:
        """All faces of an upright RGB picture, surest first, none twice.

        Args:
            picture: H×W, 8-bit RGB, any size.
            search_px: size of the long side at which faces are searched for; a small picture is enlarged at most twice.
        """
        ...

    def located(self, picture: "Image", box: Box, confidence: float) -> Found:
        """The face that somebody else has found in that box, with its landmarks."""
        ...

    def describe(self, picture: "Image", found: Found) -> tuple[float, ...]:
        """The identity vector of a face: 128 numbers of unit length or nearly (InsightFace: 512); two of one person lie under 0.6 (Euclidean)."""
        ...


def open_detector(settings: CropSettings) -> FaceDetector:
    """The detector that the settings name. Raises ModelError, in words, if its weights are missing."""
    if settings.detector == "yolo":
        from lora_pipeline.models.yolo_faces import YoloFaces

        return YoloFaces.open(settings.yolo_weights)
    if settings.detector == "insightface":
        from lora_pipeline.models.insight_faces import InsightFaces

        return InsightFaces.open(settings.insightface_models)
    from lora_pipeline.models.dlib_faces import DlibFaces

    return DlibFaces.open(cnn=settings.detector == "dlib_cnn")


def terms(settings: CropSettings) -> list[str]:
    """What the makers of the models that the settings name allow less than everything, a sentence each."""
    from lora_pipeline.models import dlib_faces, insight_faces

    told = [insight_faces.TERMS] if settings.detector == "insightface" else []
    return told + ([dlib_faces.TERMS] if settings.head_pose else [])


@dataclass(frozen=True)
class SeenFaces:
    """The faces of one picture.

    Args:
        count: how many were found.
        height: of the largest one's box, as a share of the picture's height, 0 to 1.
        descriptor: whose the largest one is; see `FaceDetector.describe`.
    """

    count: int
    height: float
    descriptor: tuple[float, ...]


def face_reader(settings: CropSettings) -> "Callable[[Image], SeenFaces | None]":
    """A function that says how many faces a picture has and whose the largest is, or None where no face is found.

    Small pictures (validation pictures, crops) are enlarged to `EMBEDDED_PX` first, whatever `search_px` is: the detectors see
    no face under 80 px. Raises ModelError as `open_detector` does.
    """
    detector = open_detector(settings)

    def read(picture: "Image") -> SeenFaces | None:
        from PIL import Image

        enlarged = EMBEDDED_PX / max(picture.size)
        if enlarged > 1:
            size = (round(picture.width * enlarged), round(picture.height * enlarged))
            picture = picture.resize(size, Image.Resampling.LANCZOS)
        found = detector.find(picture, EMBEDDED_PX)
        if not found:
            return None
        largest = max(found, key=lambda face: (face.box[2] - face.box[0]) * (face.box[3] - face.box[1]))
        height = (largest.box[3] - largest.box[1]) / picture.height
        return SeenFaces(len(found), height, detector.describe(picture, largest))

    return read


def identity(settings: CropSettings) -> str:
    """Name and digest of the detector's weights, for a memo's key. Raises ModelError as `open_detector` does."""
    detector = open_detector(settings)
    digests = "".join(digest_file(path) for path in detector.weights)
    return f"{detector.name} {FACES_VERSION} {digest_bytes(digests.encode())}"
