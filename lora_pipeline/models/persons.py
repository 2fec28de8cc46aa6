"""Finding people, whole, whichever way they face: one written protocol, behind which stands an ultralytics YOLO."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from lora_pipeline.errors import ModelError
from lora_pipeline.models.dlib_faces import cut_to
from lora_pipeline.models.yolo import Yolo
from lora_pipeline.records import Box
from lora_pipeline.store import digest_file

if TYPE_CHECKING:
    from PIL.Image import Image

SURE = 0.4
"""Least YOLO confidence (0 to 1) that counts as a person."""

PERSON = "person"
"""What COCO, and most of those who train on people, call that class."""


class PersonDetector(Protocol):
    """What the pipeline asks of a person detector. Opening one is cheap: weights are read when the first picture comes."""

    @property
    def identity(self) -> str:
        """Name and digest of its weights, for a memo's key."""
        ...

    def find(self, picture: "Image", search_px: int) -> list[tuple[Box, float]]:
        """All people of an upright RGB picture, surest first, with the detector's own score.

        Args:
            picture: H×W, 8-bit RGB, any size.
            search_px: size of the long side at which they are searched for.

        Returns:
            boxes (left, top, right, bottom) in the picture's pixels, right and bottom exclusive, cut to the picture: of a person,
            hair to feet, as much as is seen.
        """
        ...


def open_person_detector(weights: str) -> PersonDetector:
    """The detector of those weights. Raises ModelError, in words, if they are missing."""
    return YoloPersons.open(weights)


@dataclass(frozen=True)
class YoloPersons:
    """A YOLO detector.

    Args:
        network: one of its weights' classes is `person`: COCO's 80 have it (yolov8n.pt).
    """

    network: Yolo

    @classmethod
    def open(cls, weights: str) -> "YoloPersons":
        """Raises ModelError if the file is missing."""
        how = "put weights such as yolov8n.pt (github.com/ultralytics/assets) there, or leave it empty: nobody is looked for but by the face then"
        return cls(Yolo.open("crop.yolo_person_weights", weights, how))

    @property
    def identity(self) -> str:
        """See `PersonDetector.identity`."""
        return f"yolo {digest_file(self.network.file)}"

    def find(self, picture: "Image", search_px: int) -> list[tuple[Box, float]]:
        """See `PersonDetector.find`. Runs on the first CUDA device if there is one. Raises ModelError if the weights know no person."""
        names = self.network.classes
        wanted = [number for number, name in names.items() if name.casefold() == PERSON]
        if not wanted:
            known = ", ".join(list(names.values())[:5])
            raise ModelError(
                f"{self.network.setting}: {self.network.file} knows no class '{PERSON}' (it finds: {known}); name one that does, such as yolov8n.pt"
            )
        return [
            (box, round(confidence, 3))
            for loose, confidence in self.network.find(picture, search_px, SURE, wanted)
            if (box := cut_to(loose, picture.width, picture.height))
        ]
