"""Faces by an ultralytics YOLO that was trained on them (face_yolov8n.pt, or any weights the person names): the GPU's choice.

Its boxes reach from the hairline to the chin. Here they become dlib's: a square as wide as the face that stands on the chin, so
that framings mean the same with every detector. Landmarks and descriptor are dlib's, on that square.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lora_pipeline.errors import ModelError
from lora_pipeline.models.dlib_faces import Describer, Loose, cut_to, merged
from lora_pipeline.models.faces import Found
from lora_pipeline.models.yolo import Yolo
from lora_pipeline.records import Box

if TYPE_CHECKING:
    from PIL.Image import Image

SURE = 0.4
"""Least YOLO confidence (0 to 1) that counts as a face."""


@dataclass(frozen=True)
class YoloFaces:
    """A YOLO detector.

    Args:
        network: its weights' every class is a face.
        describer: dlib's landmarks and descriptor.
    """

    network: Yolo
    describer: Describer

    @classmethod
    def open(cls, weights: str) -> "YoloFaces":
        """Raises ModelError if no weights are named, the file is missing, or dlib's files are."""
        how = (
            "put a face model such as face_yolov8n.pt (Hugging Face: Bingsu/adetailer) on this machine and name the file in "
            "crop.yolo_weights, or set crop.detector to dlib_hog"
        )
        if not weights:
            raise ModelError(f"crop.detector is yolo, but crop.yolo_weights is empty; {how}")
        return cls(Yolo.open("crop.yolo_weights", weights, how), Describer.open())

    @property
    def name(self) -> str:
        """Always yolo."""
        return "yolo"

    @property
    def weights(self) -> tuple[Path, ...]:
        """All files read."""
        return (self.network.file, *self.describer.weights)

    def find(self, picture: "Image", search_px: int) -> list[Found]:
        """See `FaceDetector.find`. Runs on the first CUDA device if there is one."""
        import numpy as np

        finds: list[tuple[Loose, float]] = []
        for (left, top, right, bottom), confidence in self.network.find(picture, search_px, SURE):
            side = max(1.0, min(right - left, bottom - top))
            middle = (left + right) / 2
            finds.append(((middle - side / 2, bottom - side, middle + side / 2, bottom), confidence))
        pixels = np.asarray(picture.convert("RGB"))
        return [
            Found(box, confidence, self.describer.landmarks(pixels, loose))
            for loose, confidence in merged(finds)
            if (box := cut_to(loose, picture.width, picture.height))
        ]

    def located(self, picture: "Image", box: Box, confidence: float) -> Found:
        """See `FaceDetector.located`."""
        return self.describer.located(picture, box, confidence)

    def describe(self, picture: "Image", found: Found) -> tuple[float, ...]:
        """See `FaceDetector.describe`."""
        return self.describer.describe(picture, found)
