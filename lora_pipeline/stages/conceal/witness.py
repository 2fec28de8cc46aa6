"""Hidden means hidden: whoever knew the people in a photo looks at what was made of it, and must know none of the hidden ones."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from lora_pipeline.models.faces import FaceDetector
from lora_pipeline.records import Box, Face

if TYPE_CHECKING:
    from PIL.Image import Image

LOOKED_AT_PX = 512
"""Long side to which a smaller picture is enlarged: the detectors see no face under 80 px."""


@dataclass(frozen=True)
class Recognised:
    """A face in which a hidden person is still known.

    Args:
        box: pixels of the picture.
        distance: Euclidean, to the nearest descriptor of the photo's hidden people.
    """

    box: Box
    distance: float


@dataclass(frozen=True)
class Witness:
    """Knows the faces of the photos as they were before anything was hidden.

    Args:
        faces: a photo's id → its faces, each with its descriptor and whose it is.
        detector: finds and describes faces.
        identity: of the detector's weights, for a memo's key.
        same_person_distance: descriptors nearer than this are one person (Euclidean).
    """

    faces: Mapping[str, Sequence[Face]]
    detector: FaceDetector
    identity: str
    same_person_distance: float
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def hidden(self, photo: str) -> list[Sequence[float]]:
        """Descriptors of the photo's faces that are to be hidden: not the subject's, and nothing that a person says is no face."""
        return [face.descriptor for face in self.faces.get(photo, ()) if face.whose in ("stranger", "unsure")]

    def recognises(
        self, picture: "Image", photo: str, subject: Box | None, told: Sequence[Box] = ()
    ) -> list[Recognised]:
        """The faces in which a hidden person of the photo is known.

        Every face is asked that the detector finds anywhere but at the subject's; and what there is at `told` is described as
        if some better detector had found a face there.

        Args:
            picture: H×W, 8-bit RGB, covers on.
            subject: the subject's face, pixels of the picture.
            told: where faces were, pixels of the picture.
        """
        from PIL import Image

        descriptors = np.array(self.hidden(photo))
        if not len(descriptors):
            return []
        larger = max(1.0, LOOKED_AT_PX / max(picture.size))
        size = (round(picture.width * larger), round(picture.height * larger))
        looked_at = picture if larger == 1 else picture.resize(size, Image.Resampling.LANCZOS)
        with self._one_at_a_time:
            found = self.detector.find(looked_at, max(size))
            found += [self.detector.located(looked_at, _scaled(box, larger), 0.0) for box in told]
            seen = [(_scaled(face.box, 1 / larger), self.detector.describe(looked_at, face)) for face in found]
        nearest = [
            Recognised(box, float(np.linalg.norm(descriptors - np.array(descriptor), axis=1).min()))
            for box, descriptor in seen
            if subject is None or not _middle_in(box, subject)
        ]
        return [one for one in nearest if one.distance <= self.same_person_distance]


def _scaled(box: Box, by: float) -> Box:
    left, top, right, bottom = (round(side * by) for side in box)
    return left, top, right, bottom


def _middle_in(box: Box, other: Box) -> bool:
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return other[0] <= x < other[2] and other[1] <= y < other[3]
