"""Faces by InsightFace: SCRFD or RetinaFace finds them (Guo et al., 2022, arXiv:2105.04714), ArcFace tells whose they are (Deng et al., 2019, arXiv:1801.07698).

The package (`pip install 'lora-pipeline[insightface]'`) is MIT; the weights that its makers give out, such as buffalo_l, are for
non-commercial research only, and `TERMS` says so to who chooses them. Nothing is downloaded here.

Boxes become dlib's, and so do the five landmarks that yaw is read from, as for YOLO: framings and angles mean the same with
every detector. ArcFace's vector, of unit length, is scaled by `SCALE`, so that distances mean the same too: two of one person lie under 0.6.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_pipeline.errors import ModelError
from lora_pipeline.models.dlib_faces import MOST_ENLARGED, Describer, cut_to, merged
from lora_pipeline.models.faces import Found, Points
from lora_pipeline.records import Box

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

SURE = 0.5
"""Least score (0 to 1) that counts as a face: the package's own."""
SAME_COSINE = 0.4
"""Cosine from which the package's own program calls two faces one person's (insightface.gui, 2.1)."""
SCALE = 0.6 / (2 - 2 * SAME_COSINE) ** 0.5
"""Takes the Euclidean distance of two unit vectors of that cosine, √(2 - 2 cos), to 0.6."""

EYES = ((38.2946, 51.6963), (73.5318, 51.5014))
REST = ((56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))
"""Where ArcFace wants eyes, tip of the nose and corners of the mouth on its 112 × 112 pictures (insightface.utils.face_align)."""

TERMS = (
    "InsightFace's weights (crop.detector: insightface) are for non-commercial research only; "
    "what is chosen by them, this training set too, is to be used so"
)


@dataclass(frozen=True)
class InsightFound(Found):
    """A face that InsightFace found.

    Args:
        points: the eyes' middles, the left of the picture first, tip of the nose, corners of the mouth; pixels of the picture.
    """

    points: Points = ()


@dataclass(frozen=True)
class InsightFaces:
    """InsightFace's detector and embedder.

    Args:
        folder: of its ONNX files: one that detects with five points, and one that recognises.
        describer: dlib's landmarks.
    """

    folder: Path
    describer: Describer

    @classmethod
    def open(cls, folder: str) -> "InsightFaces":
        """Raises ModelError if no folder is named, or it holds no ONNX file, or the package or dlib's files are missing."""
        import importlib.util

        how = (
            "put the ONNX files of a model pack such as buffalo_l (github.com/deepinsight/insightface, for non-commercial research only) "
            "into a folder and name it in crop.insightface_models, or set crop.detector to dlib_hog"
        )
        if importlib.util.find_spec("insightface") is None:
            raise ModelError(
                "crop.detector is insightface, whose package is missing: pip install 'lora-pipeline[insightface]'"
            )
        if not folder:
            raise ModelError(f"crop.detector is insightface, but crop.insightface_models is empty; {how}")
        path = Path(folder).expanduser()
        if not any(path.glob("*.onnx")):
            raise ModelError(f"crop.insightface_models names {path}, which holds no .onnx file; {how}")
        return cls(path, Describer.open())

    @property
    def name(self) -> str:
        """Always insightface."""
        return "insightface"

    @property
    def weights(self) -> tuple[Path, ...]:
        """All files read."""
        return (*sorted(self.folder.glob("*.onnx")), *self.describer.weights)

    @cached_property
    def _app(self) -> Any:
        import torch

        try:
            app: Any = _insightface().FaceAnalysis(str(self.folder), allowed_modules=["detection", "recognition"])
        except Exception as error:
            raise ModelError(
                f"crop.insightface_models: the files in {self.folder} cannot be opened as InsightFace's ({error})"
            ) from error
        if missing := {"detection", "recognition"} - set(app.models):
            raise ModelError(f"crop.insightface_models: no file in {self.folder} is for {' or '.join(sorted(missing))}")
        app.prepare(ctx_id=0 if torch.cuda.is_available() else -1, det_thresh=SURE, det_size=(640, 640))
        return app

    def find(self, picture: "Image", search_px: int) -> list[Found]:
        """See `FaceDetector.find`."""
        import numpy as np

        pixels = np.asarray(picture.convert("RGB"))
        side_px = max(32, int(min(search_px, MOST_ENLARGED * max(picture.size))) // 32 * 32)  # it shrinks by 32
        boxes, points = self._app.models["detection"].detect(_bgr(pixels), input_size=(side_px, side_px))
        if points is None:
            raise ModelError(
                f"crop.insightface_models: the detector in {self.folder} finds no points of a face, only boxes"
            )
        finds: dict[tuple[float, float, float, float], Points] = {}
        scores: list[tuple[tuple[float, float, float, float], float]] = []
        for (left, top, right, bottom, score), five in zip(boxes.tolist(), points.tolist(), strict=True):
            # Its boxes reach from the hairline to the chin; dlib's are squares that stand on the chin.
            side = max(1.0, min(right - left, bottom - top))
            loose = ((left + right - side) / 2, bottom - side, (left + right + side) / 2, bottom)
            finds[loose] = tuple((float(x), float(y)) for x, y in five)
            scores.append((loose, float(score)))
        return [
            InsightFound(box, score, self.describer.landmarks(pixels, loose), finds[loose])
            for loose, score in merged(scores)
            if (box := cut_to(loose, picture.width, picture.height))
        ]

    def located(self, picture: "Image", box: Box, confidence: float) -> Found:
        """See `FaceDetector.located`. Where ArcFace wants the face's points is guessed from dlib's eyes."""
        found = self.describer.located(picture, box, confidence)
        return InsightFound(found.box, confidence, found.landmarks, _from_eyes(found.landmarks))

    def describe(self, picture: "Image", found: Found) -> tuple[float, ...]:
        """See `FaceDetector.describe`: ArcFace's vector, 512 numbers in buffalo_l, of length `SCALE`."""
        import numpy as np

        points = found.points if isinstance(found, InsightFound) and found.points else _from_eyes(found.landmarks)
        face = _insightface().common.Face(kps=np.asarray(points, dtype=np.float32))
        vector = self._app.models["recognition"].get(_bgr(np.asarray(picture.convert("RGB"))), face)
        return tuple((SCALE * vector / max(float(np.linalg.norm(vector)), 1e-9)).tolist())


def _insightface() -> Any:
    import importlib

    return importlib.import_module("insightface.app")  # an extra, without types


def _bgr(pixels: "NDArray[np.uint8]") -> "NDArray[np.uint8]":
    import numpy as np

    return np.ascontiguousarray(pixels[:, :, ::-1])


def _from_eyes(landmarks: Points) -> Points:
    """ArcFace's five points of a face of which only dlib's eyes are known: its template turned and scaled so that the eyes fit."""
    (right_x, right_y), (left_x, left_y) = (
        tuple(sum(point[axis] for point in pair) / 2 for axis in (0, 1)) for pair in (landmarks[:2], landmarks[2:4])
    )
    left, right = complex(left_x, left_y), complex(right_x, right_y)
    from_left, from_right = complex(*EYES[0]), complex(*EYES[1])
    turn = (right - left) / (from_right - from_left)
    rest = [left + turn * (complex(*point) - from_left) for point in REST]
    return tuple((place.real, place.imag) for place in (left, right, *rest))
