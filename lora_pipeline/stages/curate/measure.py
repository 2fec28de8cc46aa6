"""What is measured of one photo, whatever the thresholds are."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lora_pipeline.records import Box, Record
from lora_pipeline.stages.curate.bars import trim_box

if TYPE_CHECKING:
    from PIL.Image import Image

SHARPNESS_PX = 512
LOOK_PX = 8


@dataclass(frozen=True)
class Measured(Record):
    """What `measure` finds.

    Args:
        trim, sharpness, brightness, contrast, phash: as in `Quality`.
        file_bytes: size of the photo's file.
        look: the trimmed picture at 8 × 8 pixels, RGB, as hexadecimal digits: what `copies` compares beside the hash.
    """

    trim: Box
    sharpness: float
    brightness: float
    contrast: float
    file_bytes: int
    phash: str
    look: str


def measure(picture: "Image", file_bytes: int, trim_bars: bool) -> Measured:
    """Measure an upright RGB photo, with its bars cut off if `trim_bars`."""
    import imagehash
    from PIL import Image

    trim = trim_box(np.asarray(picture)) if trim_bars else (0, 0, picture.width, picture.height)
    trimmed = picture.crop(trim)
    luma = np.asarray(_at_most(trimmed.convert("L"), SHARPNESS_PX), dtype=np.float32)
    small = trimmed.resize((LOOK_PX, LOOK_PX), Image.Resampling.BOX)
    return Measured(
        trim=trim,
        sharpness=round(sharpness(luma), 2),
        brightness=round(float(luma.mean()) / 255, 4),
        contrast=round(float(luma.std()) / 255, 4),
        file_bytes=file_bytes,
        phash=str(imagehash.phash(trimmed)),
        look=small.tobytes().hex(),
    )


def sharpness(luma: NDArray[np.float32]) -> float:
    """Variance of the Laplacian (Pech-Pacheco et al. 2000) of a picture's luma, height × width, 0 to 255.

    It depends on the picture's size, so all are brought to one; but a smaller one is not enlarged, which would make every
    small photo a blurred one. A small photo thus scores higher than a large one of the same sharpness: the threshold is
    lenient with it (`min_side_px` is what refuses small photos).
    """
    if min(luma.shape) < 3:
        return 0.0
    around = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:]
    return float((around - 4 * luma[1:-1, 1:-1]).var())


def _at_most(picture: "Image", side_px: int) -> "Image":
    from PIL import Image

    scale = side_px / max(picture.size)
    if scale >= 1:
        return picture
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS)
