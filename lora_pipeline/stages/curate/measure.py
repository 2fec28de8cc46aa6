"""What is measured of one photo, whatever the thresholds are."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lora_pipeline.records import Box, Record
from lora_pipeline.stages.curate import flaws
from lora_pipeline.stages.curate.bars import trim_box
from lora_pipeline.stages.curate.detail import tiles, true_share
from lora_pipeline.stages.curate.marks import LOOK_PX, look, marks
from lora_pipeline.stages.curate.text import text_boxes

if TYPE_CHECKING:
    from PIL.Image import Image

SHARPNESS_PX = 512
LIGHT_PX = 1024  # rows and columns at most that are looked at for clipped and plain areas


@dataclass(frozen=True)
class Measured(Record):
    """What `measure` finds.

    Args:
        trim, sharpness, brightness, contrast, phash: as in `Quality`.
        true_side_px, clipped_shadows, clipped_highlights, noise, blocking, plain, text_boxes: as in `Quality`.
        file_bytes: size of the photo's file.
        mirrored: the perceptual hash of the picture's mirror image.
        look: the trimmed picture at 16 × 16 pixels, RGB, as hexadecimal digits: what `copies` compares beside the hashes.
        marks: `marks.marks` of the trimmed picture, their bytes as hexadecimal digits.
    """

    trim: Box
    sharpness: float
    brightness: float
    contrast: float
    true_side_px: int
    clipped_shadows: float
    clipped_highlights: float
    noise: float
    blocking: float
    plain: float
    file_bytes: int
    phash: str
    mirrored: str
    look: str
    marks: str
    text_boxes: tuple[Box, ...] = ()

    @property
    def small(self) -> NDArray[np.uint8]:
        """`look` as a picture, 16×16×3."""
        return np.frombuffer(bytes.fromhex(self.look), dtype=np.uint8).reshape(LOOK_PX, LOOK_PX, 3)


def measure(picture: "Image", file_bytes: int, trim_bars: bool) -> Measured:
    """Measure an upright RGB photo, with its bars cut off if `trim_bars`."""
    import imagehash
    from PIL import Image

    pixels = np.asarray(picture)
    trim = trim_box(pixels) if trim_bars else (0, 0, picture.width, picture.height)
    pixels = pixels[trim[1] : trim[3], trim[0] : trim[2]]
    trimmed = picture.crop(trim) if trim != (0, 0, *picture.size) else picture
    whole = trimmed.convert("L")
    luma = np.asarray(_at_most(whole, SHARPNESS_PX), dtype=np.float32)
    every = max(1, -(-max(trimmed.size) // LIGHT_PX))
    shadows, highlights = flaws.clipped(pixels[::every, ::every])
    middle = _middle(pixels)
    return Measured(
        trim=trim,
        sharpness=round(sharpness(luma), 2),
        brightness=round(float(luma.mean()) / 255, 4),
        contrast=round(float(luma.std()) / 255, 4),
        true_side_px=round(true_share(whole) * min(whole.size)),
        clipped_shadows=round(shadows, 4),
        clipped_highlights=round(highlights, 4),
        noise=round(flaws.noise(tiles(np.asarray(whole))), 2),
        blocking=round(flaws.blocking(np.asarray(whole)), 3),
        plain=round(flaws.plain(middle), 4),
        text_boxes=tuple(
            (left + trim[0], top + trim[1], right + trim[0], bottom + trim[1])
            for left, top, right, bottom in text_boxes(whole)
        ),
        file_bytes=file_bytes,
        phash=str(imagehash.phash(whole)),
        mirrored=str(imagehash.phash(whole.transpose(Image.Transpose.FLIP_LEFT_RIGHT))),
        look=look(trimmed).tobytes().hex(),
        marks=marks(whole).tobytes().hex(),
    )


def sharpness(luma: NDArray[np.float32]) -> float:
    """Variance of the Laplacian (Pech-Pacheco et al. 2000) of a picture's luma, height × width, 0 to 255.

    It depends on the picture's size, so all are brought to one; but a smaller one is not enlarged, which would make every
    small photo a blurred one. A small photo thus scores higher than a large one of the same sharpness: the threshold is
    lenient with it (`min_side_px` and `min_true_side_px` are what refuses small photos).
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


def _middle(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """At most so many rows and columns, neighbours as they were."""
    top, left = (max(0, (length - LIGHT_PX) // 2) for length in pixels.shape[:2])
    return pixels[top : top + LIGHT_PX, left : left + LIGHT_PX]
