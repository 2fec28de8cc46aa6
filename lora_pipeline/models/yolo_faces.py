"""Faces by an ultralytics YOLO that was trained on them (face_yolov8n.pt, or any weights the person names): the GPU's choice.

Its boxes reach from the hairline to the chin. Here they become dlib's: a square as wide as the face that stands on the chin, so
that framings mean the same with every detector. Landmarks and descriptor are dlib's, on that square.
"""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_pipeline.errors import ModelError
from lora_pipeline.models.dlib_faces import MOST_ENLARGED, Describer, cut_to, merged
from lora_pipeline.models.faces import Found
from lora_pipeline.records import Box

if TYPE_CHECKING:
    from PIL.Image import Image

SURE = 0.4
"""Least YOLO confidence (0 to 1) that counts as a face."""


def ultralytics_yolo() -> Any:
    """The class `ultralytics.YOLO`, without what importing it does to the process."""
    from PIL import Image

    os.environ.setdefault("YOLO_OFFLINE", "true")  # ultralytics tells its makers of each use otherwise
    opens = Image.open
    from ultralytics import YOLO

    # It puts its own function in the place of Image.open, which at the first file that is no picture installs a package by pip.
    Image.open = opens
    return YOLO


@dataclass(frozen=True)
class YoloFaces:
    """A YOLO detector.

    Args:
        weights_file: an ultralytics `.pt` file whose every class is a face.
        describer: dlib's landmarks and descriptor.
    """

    weights_file: Path
    describer: Describer

    @classmethod
    def open(cls, weights: str) -> "YoloFaces":
        """Raises ModelError if no weights are named, the file is missing, or dlib's files are."""
        how = "put a face model such as face_yolov8n.pt (Hugging Face: Bingsu/adetailer) on this machine and name the file in crop.yolo_weights"
        if not weights:
            raise ModelError(
                f"crop.detector is yolo, but crop.yolo_weights is empty; {how}, or set crop.detector to dlib_hog"
            )
        file = Path(weights).expanduser()
        if not file.is_file():
            raise ModelError(
                f"crop.yolo_weights names {file}, which is not there; {how}, or set crop.detector to dlib_hog"
            )
        return cls(file, Describer.open())

    @property
    def name(self) -> str:
        """Always yolo."""
        return "yolo"

    @property
    def weights(self) -> tuple[Path, ...]:
        """All files read."""
        return (self.weights_file, *self.describer.weights)

    @cached_property
    def _model(self) -> Any:
        try:
            return ultralytics_yolo()(str(self.weights_file), task="detect")
        except Exception as error:
            raise ModelError(
                f"crop.yolo_weights: {self.weights_file} cannot be opened as an ultralytics YOLO detector ({error})"
            ) from error

    def find(self, picture: "Image", search_px: int) -> list[Found]:
        """See `FaceDetector.find`. Runs on the first CUDA device if there is one."""
        import numpy as np
        import torch

        side_px = int(min(search_px, MOST_ENLARGED * max(picture.size)))
        pixels = np.asarray(picture.convert("RGB"))
        result = self._model.predict(
            pixels[:, :, ::-1],  # ultralytics takes arrays as BGR
            imgsz=max(32, -(-side_px // 32) * 32),
            conf=SURE,
            device="cuda" if torch.cuda.is_available() else "cpu",
            verbose=False,
        )[0]
        finds = []
        for (left, top, right, bottom), confidence in zip(
            result.boxes.xyxy.tolist(), result.boxes.conf.tolist(), strict=True
        ):
            side = max(1.0, min(right - left, bottom - top))
            middle = (left + right) / 2
            finds.append(((middle - side / 2, bottom - side, middle + side / 2, bottom), float(confidence)))
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
