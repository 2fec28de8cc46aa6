"""The two questions that measuring asks of dlib: where is a face, and whose is it."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ENLARGED_PX: Final = 512
"""dlib's detector finds faces of 80 px and more; small pictures are enlarged to this first."""


def models_folder() -> Path:
    """Where `face_recognition_models` keeps its files. The package itself is not imported: it needs pkg_resources."""
    spec = importlib.util.find_spec("face_recognition_models")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("face_recognition_models is not installed")
    return Path(spec.submodule_search_locations[0]) / "models"


@cache
def _dlib() -> tuple[Any, Any, Any]:
    import dlib

    library: Any = dlib
    folder = models_folder()
    return (
        library.get_frontal_face_detector(),
        library.shape_predictor(str(folder / "shape_predictor_5_face_landmarks.dat")),
        library.face_recognition_model_v1(str(folder / "dlib_face_recognition_resnet_model_v1.dat")),
    )


def enlarged(picture: Image.Image) -> NDArray[np.uint8]:
    """H x W x 3, RGB, 0..255, the longer side at least `ENLARGED_PX`."""
    share = ENLARGED_PX / max(picture.size)
    if share > 1:
        size = (round(picture.width * share), round(picture.height * share))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    return np.asarray(picture.convert("RGB"))


def boxes(picture: Image.Image) -> list[tuple[float, float, float, float]]:
    """Faces found, as x, y, width, height in px of the picture as it was given."""
    pixels = enlarged(picture)
    share = picture.width / pixels.shape[1]
    found: Any = _dlib()[0](pixels, 0)
    return [(r.left() * share, r.top() * share, r.width() * share, r.height() * share) for r in found]


def descriptor(picture: Image.Image) -> NDArray[np.float64] | None:
    """128 numbers that say whose the largest face is, or None where no face is found. Distances: 0 (same) .. 1."""
    detector, landmarks, recogniser = _dlib()
    pixels = enlarged(picture)
    found: Any = detector(pixels, 0)
    if not found:
        return None
    largest = max(found, key=lambda r: r.area())
    return np.array(recogniser.compute_face_descriptor(pixels, landmarks(pixels, largest)))
