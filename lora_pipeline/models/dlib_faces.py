"""dlib's face detectors, its five landmarks and its identity descriptor; its 68 landmarks where they are asked for.

Files come with the package `face_recognition_models`; they are only looked up, since importing that package needs
`pkg_resources`, which is gone. Licences of the three files used: CC0. A fourth, `Landmarks68`, is another matter.

The HOG detector sees frontal faces of 80 px and more. So a picture is searched three times:

- at `search_px`;
- its left and right borders with their mirror image beyond the edge, where a face cut in half becomes whole again;
- at twice `search_px`, for those of 40 px and more, of which only sure ones count, and for larger ones once more: between two
  steps of the detector's pyramid a face's score changes by 0.3.

Measured on the 17 hand-checked faces of the 14 real photos and on 40 drawn photos: all found (the least sure: 0.15). The least
sure finds that were no face: 0.00 at the first size; at the second 0.50 for small ones, -0.10 for large ones. Hence the two limits.
"""

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_pipeline.errors import ModelError
from lora_pipeline.models.faces import Found, Points
from lora_pipeline.records import Box
from lora_pipeline.store import digest_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

CNN = "mmod_human_face_detector.dat"
LANDMARKS = "shape_predictor_5_face_landmarks.dat"
ALL_LANDMARKS = "shape_predictor_68_face_landmarks.dat"
DESCRIPTOR = "dlib_face_recognition_resnet_model_v1.dat"

TERMS = (
    "dlib's 68 landmarks (crop.head_pose) were trained on iBUG 300-W, whose pictures are for non-commercial research; "
    "ask Imperial College London before a product is made with them"
)

SURE = 0.1
"""Least HOG score that counts at `search_px`."""
SURE_SMALL = 0.6
"""Least HOG score that counts for a face too small for the first search."""
LEAST_PX = 80
"""Side of the smallest face that HOG sees."""
MOST_ENLARGED = 2.0
BORDER = 0.3
"""Width of a searched border, as a share of the long side; half of it is mirrored beyond the edge."""

Loose = tuple[float, float, float, float]
"""A box before it is rounded and cut to the picture."""


def _dlib() -> Any:
    import importlib

    return importlib.import_module("dlib")  # compiled, without types


def model_file(name: str) -> Path:
    """One of dlib's model files. Raises ModelError if the package that holds it is missing."""
    found = importlib.util.find_spec("face_recognition_models")
    for folder in (found.submodule_search_locations or ()) if found else ():
        path = Path(folder) / "models" / name
        if path.is_file():
            return path
    raise ModelError(
        f"dlib's model file {name} is missing; it comes with the package face_recognition_models: "
        "pip install 'face_recognition_models>=0.3' (needed for every setting of crop.detector)"
    )


@dataclass(frozen=True)
class Describer:
    """Landmarks and identity of a face whose box is known; shared by every detector.

    Args:
        landmarks_file, descriptor_file: dlib's model files.
    """

    landmarks_file: Path
    descriptor_file: Path

    @classmethod
    def open(cls) -> "Describer":
        """Find the files. Raises ModelError."""
        return cls(model_file(LANDMARKS), model_file(DESCRIPTOR))

    @property
    def weights(self) -> tuple[Path, ...]:
        """Both files."""
        return (self.landmarks_file, self.descriptor_file)

    @cached_property
    def _predictor(self) -> Any:
        return _dlib().shape_predictor(str(self.landmarks_file))

    @cached_property
    def _network(self) -> Any:
        return _dlib().face_recognition_model_v1(str(self.descriptor_file))

    def landmarks(self, pixels: "NDArray[np.uint8]", box: Loose) -> Points:
        """Five points, the median over 27 boxes moved and scaled a little about `box`.

        The predictor starts from the box, and a detector's boxes come in steps of a fifth of their size; one box alone gives
        points that are off by more than the turn of a head moves them.
        """
        return _points(self._predictor, pixels, box)

    def located(self, picture: "Image", box: Box, confidence: float) -> Found:
        """See `FaceDetector.located`."""
        import numpy as np

        return Found(box, confidence, self.landmarks(np.asarray(picture.convert("RGB")), box))

    def describe(self, picture: "Image", found: Found) -> tuple[float, ...]:
        """The 128 numbers (dlib's ResNet, no jitter) of the face at those landmarks."""
        import numpy as np

        # Only the face's surroundings are handed over: dlib copies what it is given, and a photo has millions of pixels.
        xs, ys = [x for x, _ in found.landmarks], [y for _, y in found.landmarks]
        reach = 4 * max(max(xs) - min(xs), max(ys) - min(ys), 8)
        left, top = max(0, int(min(xs) - reach)), max(0, int(min(ys) - reach))
        right, bottom = min(picture.width, int(max(xs) + reach)), min(picture.height, int(max(ys) + reach))
        pixels = np.asarray(picture.crop((left, top, right, bottom)).convert("RGB"))
        points = [_dlib().point(round(x - left), round(y - top)) for x, y in found.landmarks]
        box = _dlib().rectangle(found.box[0] - left, found.box[1] - top, found.box[2] - left, found.box[3] - top)
        return tuple(
            float(number)
            for number in self._network.compute_face_descriptor(pixels, _dlib().full_object_detection(box, points))
        )


@dataclass(frozen=True)
class Landmarks68:
    """The 68 points of a face whose box is known (iBUG's numbering, from 0): jaw 0 to 16, brows to 26, nose to 35, eyes to 47, mouth to 67.

    Args:
        file: dlib's model file. It was trained on iBUG 300-W, pictures that are for non-commercial research; say so to who chooses it.
    """

    file: Path

    @classmethod
    def open(cls) -> "Landmarks68":
        """Find the file. Raises ModelError."""
        return cls(model_file(ALL_LANDMARKS))

    @property
    def identity(self) -> str:
        """Its digest, for a memo's key."""
        return f"dlib {digest_file(self.file)}"

    @cached_property
    def _predictor(self) -> Any:
        return _dlib().shape_predictor(str(self.file))

    def points(self, picture: "Image", box: Box) -> Points:
        """68 points, (x, y) in pixels of the picture. Those of a face cut by the picture's edge may lie outside it."""
        import numpy as np

        return _points(self._predictor, np.asarray(picture.convert("RGB")), box)


def _points(predictor: Any, pixels: "NDArray[np.uint8]", box: Loose) -> Points:
    """See `Describer.landmarks`."""
    import numpy as np

    centre_x, centre_y, side = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, max(box[2] - box[0], box[3] - box[1])
    all_points: list[list[tuple[float, float]]] = []
    for scale in (0.88, 1.0, 1.14):
        for right in (-0.06, 0.0, 0.06):
            for down in (-0.06, 0.0, 0.06):
                x, y, half = centre_x + right * side, centre_y + down * side, side * scale / 2
                shape = predictor(
                    pixels, _dlib().rectangle(round(x - half), round(y - half), round(x + half), round(y + half))
                )
                all_points.append([(point.x, point.y) for point in shape.parts()])
    middle = np.median(np.array(all_points, dtype=np.float64), axis=0)
    return tuple((float(x), float(y)) for x, y in middle)


@dataclass(frozen=True)
class DlibFaces:
    """dlib's HOG detector, or its CNN one (slower on a CPU by a hundred times; finds turned faces too).

    Args:
        describer: landmarks and descriptor.
        cnn_file: the CNN's weights, or None for HOG (which lies in dlib itself).
    """

    describer: Describer
    cnn_file: Path | None = None

    @classmethod
    def open(cls, cnn: bool = False) -> "DlibFaces":
        """Find the files. Raises ModelError."""
        return cls(Describer.open(), model_file(CNN) if cnn else None)

    @property
    def name(self) -> str:
        """dlib_cnn or dlib_hog."""
        return "dlib_cnn" if self.cnn_file else "dlib_hog"

    @property
    def weights(self) -> tuple[Path, ...]:
        """All files read."""
        return (*self.describer.weights, *((self.cnn_file,) if self.cnn_file else ()))

    @cached_property
    def _hog(self) -> Any:
        return _dlib().get_frontal_face_detector()

    @cached_property
    def _cnn(self) -> Any:
        return _dlib().cnn_face_detection_model_v1(str(self.cnn_file))

    def find(self, picture: "Image", search_px: int) -> list[Found]:
        """See `FaceDetector.find`."""
        import numpy as np

        scale = min(search_px / max(picture.size), MOST_ENLARGED)
        if self.cnn_file:
            finds = self._cnn_finds(picture, scale)
        else:
            scaled = _scaled(picture, scale)
            finds = [*self._hog_finds(scaled, scale, SURE), *self._border_finds(scaled, scale)]
            finer = min(2 * scale, MOST_ENLARGED)
            if finer > 1.25 * scale:
                again = self._hog_finds(_scaled(picture, finer), finer, SURE)
                large = 1.1 * LEAST_PX / scale
                finds += [(box, score) for box, score in again if score >= SURE_SMALL or box[2] - box[0] >= large]
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

    def _hog_finds(self, pixels: "NDArray[np.uint8]", scale: float, sure: float) -> list[tuple[Loose, float]]:
        boxes, scores, _ = self._hog.run(pixels, 0, sure)
        return [(_loose(box, scale), float(score)) for box, score in zip(boxes, scores, strict=True)]

    def _cnn_finds(self, picture: "Image", scale: float) -> list[tuple[Loose, float]]:
        return [(_loose(find.rect, scale), float(find.confidence)) for find in self._cnn(_scaled(picture, scale), 0)]

    def _border_finds(self, pixels: "NDArray[np.uint8]", scale: float) -> list[tuple[Loose, float]]:
        import numpy as np

        width = pixels.shape[1]
        strip = min(round(BORDER * max(pixels.shape)), width)
        beyond = strip // 2
        finds: list[tuple[Loose, float]] = []
        for border, before, after, offset in (
            (pixels[:, :strip], beyond, 0, -beyond),
            (pixels[:, width - strip :], 0, beyond, width - strip),
        ):
            if beyond == 0:
                continue
            mirrored = np.pad(border, ((0, 0), (before, after), (0, 0)), mode="reflect")
            for (left, top, right, bottom), score in self._hog_finds(mirrored, 1.0, SURE):
                middle, side = (left + right) / 2 + offset, right - left
                if -0.1 * side <= middle <= width + 0.1 * side:  # else it is the mirror image of a whole face
                    box = ((left + offset) / scale, top / scale, (right + offset) / scale, bottom / scale)
                    finds.append((box, score))
        return finds


def _scaled(picture: "Image", scale: float) -> "NDArray[np.uint8]":
    import numpy as np
    from PIL import Image

    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    if picture.mode != "RGB":  # `convert` would copy one that is
        picture = picture.convert("RGB")
    return np.asarray(picture.resize(size, Image.Resampling.LANCZOS))


def _loose(box: Any, scale: float) -> Loose:
    return (box.left() / scale, box.top() / scale, (box.right() + 1) / scale, (box.bottom() + 1) / scale)


def merged(finds: Iterable[tuple[Loose, float]]) -> list[tuple[Loose, float]]:
    """Without duplicates, surest first: a find that shares over 0.6 of the smaller's area, or an IoU over 0.3, with a surer one goes."""
    kept: list[tuple[Loose, float]] = []
    for box, confidence in sorted(finds, key=lambda find: (-find[1], find[0])):
        if all(not _same(box, other) for other, _ in kept):
            kept.append((box, confidence))
    return kept


def _same(a: Loose, b: Loose) -> bool:
    shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    area_a, area_b = (a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1])
    return shared > 0.6 * min(area_a, area_b) or shared > 0.3 * (area_a + area_b - shared)


def cut_to(box: Loose, width: int, height: int) -> tuple[int, int, int, int] | None:
    """The box in whole pixels, inside the picture; None if less than a fifth of it is."""
    left, top, right, bottom = (
        max(0, round(box[0])),
        max(0, round(box[1])),
        min(width, round(box[2])),
        min(height, round(box[3])),
    )
    if right <= left or bottom <= top or (right - left) * (bottom - top) < 0.2 * (box[2] - box[0]) * (box[3] - box[1]):
        return None
    return (left, top, right, bottom)
