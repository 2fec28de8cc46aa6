"""How a photo is shot at the subject's face and around it: measured once a photo, and remembered."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lora_pipeline.manifest import Item, Made, Outcome, refresh
from lora_pipeline.pictures import open_upright
from lora_pipeline.progress import Progress, silent
from lora_pipeline.records import Box, Record
from lora_pipeline.stages.crop.framing import FIGURE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

SHOTS = "shots"
SHOT_VERSION = "1"

FACE_PX = 96
"""Height to which a face is brought. Measured at it: in-focus faces of the drawn subject 439 to 3251 and of the real photos 246 to
1440; the same out of focus (Gaussian blur of 1.2 % of the short side) 2 to 11. At 256 px, small sharp faces (12) look like blurred ones."""

SMALL_PX = 128
"""Long side at which light and background are measured."""

DIM_TO, BRIGHT_FROM = 180.0, 0.63
"""Where the brightest channel value (its 99.8th percentile, 0 to 255) is lower, the light is dim; from this mean luma (0 to 1) it is bright."""


@dataclass(frozen=True)
class Shot(Record):
    """What is measured of a photo.

    Args:
        sharpness: variance of the Laplacian (Pech-Pacheco et al. 2000) of the luma (0 to 255) inside the face's box, brought to
            `FACE_PX` of height; of the whole picture, brought to that height, where there is no face.
        light: bright, soft or dim. Of the drawn photos, dim light is told from the others in all; bright is taken for soft, or soft
            for bright, where the walls are dark, or white (6 of 17).
        background: shares of 64 colours (4 × 4 × 4 steps of red, green and blue, blue fastest) outside the subject's figure,
            each pixel dealt out to the steps that it lies between; their sum is 1.
    """

    sharpness: float
    light: str
    background: tuple[float, ...]


@dataclass(frozen=True)
class Pictured:
    """A photo to be measured: its file, what must be in it, what of it may be used, and the subject's face in it."""

    path: str
    digest: str
    trim: Box
    face: Box | None


def measure_shots(photos: Mapping[str, Pictured], folder: Path, progress: Progress = silent) -> Outcome:
    """How each photo is shot: a row a photo, its data those of `Shot`."""
    items = (
        Item(id, [photo.digest, list(photo.trim), list(photo.face) if photo.face else None], photo)
        for id, photo in photos.items()
    )
    return refresh(
        folder,
        items,
        lambda photo, _: Made(measure(open_upright(Path(photo.path)), photo.trim, photo.face).data()),
        settings=None,
        code_version=SHOT_VERSION,
        name=SHOTS,
        what="measure faces",
        workers=0,
        progress=progress,
    )


def measure(picture: "Image", trim: Box, face: Box | None) -> Shot:
    """Measure an upright RGB photo.

    Args:
        trim: what of it may be used.
        face: the subject's, or None.
    """
    import numpy as np
    from PIL import Image

    left, top, right, bottom = face or trim
    part = picture.crop((max(0, left), max(0, top), min(picture.width, right), min(picture.height, bottom)))
    wide = max(3, round(part.width * FACE_PX / part.height))
    luma = np.asarray(part.convert("L").resize((wide, FACE_PX), Image.Resampling.LANCZOS), dtype=np.float32)
    around = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:]

    scale = SMALL_PX / max(trim[2] - trim[0], trim[3] - trim[1])
    size = (max(1, round((trim[2] - trim[0]) * scale)), max(1, round((trim[3] - trim[1]) * scale)))
    pixels = np.asarray(picture.crop(trim).resize(size, Image.Resampling.BOX), dtype=np.float64)  # H×W×3, 0 to 255
    return Shot(
        sharpness=round(float((around - 4 * luma[1:-1, 1:-1]).var()), 1),
        light=_light(pixels),
        background=tuple(round(float(share), 4) for share in colours(_behind(pixels, trim, face, scale))),
    )


def _light(pixels: "NDArray[np.float64]") -> str:
    import numpy as np

    if float(np.percentile(pixels.max(2), 99.8)) < DIM_TO:
        return "dim"
    return "bright" if float((pixels @ (0.299, 0.587, 0.114)).mean()) / 255 >= BRIGHT_FROM else "soft"


def _behind(pixels: "NDArray[np.float64]", trim: Box, face: Box | None, scale: float) -> "NDArray[np.float64]":
    """The pixels (N×3) beside and above the subject's figure; all of them where there is no face, or nothing but the figure."""
    import numpy as np

    where = np.ones(pixels.shape[:2], dtype=bool)
    if face is not None:
        side, middle = max(face[2] - face[0], face[3] - face[1]), (face[0] + face[2]) / 2
        left, right = (round((middle + sign * FIGURE * side - trim[0]) * scale) for sign in (-1, 1))
        where[max(0, round((face[1] - 0.6 * side - trim[1]) * scale)) :, max(0, left) : max(0, right)] = False
    return pixels[where] if where.mean() > 0.02 else pixels.reshape(-1, 3)


def colours(pixels: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """Shares of 64 colours among pixels (N×3, 0 to 255).

    A pixel between two steps of a channel counts for both, the nearer one more: counted for the nearest alone, one wall in two lights
    would be two backgrounds.
    """
    import numpy as np

    at = pixels / 255 * 3  # of the four steps 0, 1, 2, 3
    low = np.minimum(np.floor(at), 2).astype(int)
    over = at - low
    counts = np.zeros((4, 4, 4))
    for corner in np.ndindex(2, 2, 2):
        weight = np.where(np.array(corner), over, 1 - over).prod(1)
        np.add.at(counts, tuple((low + np.array(corner)).T), weight)
    return (counts / len(pixels)).ravel()


def unlike(backgrounds: "NDArray[np.float64]", other: "NDArray[np.float64]") -> "NDArray[np.float64]":
    """How much of their colours backgrounds (N×64) do not share with another, each 0 to 1.

    One less the intersection of the histograms: Swain and Ballard 1991, "Color indexing", section 3.1.
    """
    import numpy as np

    return 1 - np.minimum(backgrounds, other).sum(-1)
