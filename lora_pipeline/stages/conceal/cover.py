"""Covering a face so that nobody can be known by it any more, and saying where the picture was touched."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from lora_pipeline.records import Box
from lora_pipeline.settings import ConcealSettings

if TYPE_CHECKING:
    from PIL.Image import Image

DrawFace = Callable[["Image", Box, "Image"], "Image"]
"""A picture, a face in it and the cover's shape (mode L, 255 within) → the picture, with another face within the shape."""

SOLID = (127, 127, 127)
ROUNDED = 0.3
"""Radius of a cover's corners, as a share of its short side."""


def cover(
    picture: "Image",
    strangers: Sequence[Box],
    subject: Box | None,
    settings: ConcealSettings,
    draw: DrawFace | None = None,
) -> "tuple[Image, Image]":
    """Hide faces.

    Each cover is a rounded box about the face's box and `margin` beyond it. What it holds is made anew from few numbers:

    - gaussian: the face is shrunk until a pixel is half a blur radius wide, enlarged again and blurred. The shrinking is what
      cannot be undone; a blur alone could be, in part.
    - pixelate: squares of `strength` of the face's side.
    - solid: grey.
    - inpaint, swap: what `draw` makes of it, which sees no stranger's face, not that one either; see `drawn`.

    The subject's face is never touched: where a cover reaches over its box, the box wins.

    Args:
        picture: H×W, 8-bit RGB; left as it is.
        strangers: faces to hide, pixels of the picture, cut to it.
        subject: the subject's face, or None.
        draw: who draws, where the method asks for it.

    Returns:
        the picture with the covers; and the mask, H×W, 8-bit grey: 255 where the picture is untouched, so where training looks,
        0 where it is covered. Exactly the pixels with 0 may differ from those of `picture`.
    """
    from PIL import Image, ImageChops, ImageDraw

    covered = picture.copy()
    touched = Image.new("L", picture.size, 0)
    shapes: list[Image.Image] = []
    for box in strangers:
        # By the longer side: of a face cut by the crop's edge, only a strip may be there.
        beyond = settings.margin * max(box[2] - box[0], box[3] - box[1])
        reach = (
            math.floor(box[0] - beyond),
            math.floor(box[1] - beyond),
            math.ceil(box[2] + beyond) - 1,
            math.ceil(box[3] + beyond) - 1,
        )
        shape = Image.new("L", picture.size, 0)
        radius = ROUNDED * min(reach[2] - reach[0], reach[3] - reach[1])
        ImageDraw.Draw(shape).rounded_rectangle(reach, radius, fill=255)
        if subject:
            shape.paste(0, subject)
        covered.paste(_unknowable(covered, box, settings), mask=shape)
        touched = ImageChops.lighter(touched, shape)
        shapes.append(shape)
    if draw:  # it is shown the other strangers as a blur, never as they are
        for box, shape in zip(strangers, shapes, strict=True):
            covered.paste(draw(covered, box, shape), mask=shape)
    return covered, ImageChops.invert(touched)


def _unknowable(picture: "Image", face: Box, settings: ConcealSettings) -> "Image":
    """The whole picture as it is seen through the cover of this face."""
    from PIL import Image, ImageFilter

    side = max(face[2] - face[0], face[3] - face[1])
    if settings.method == "solid":
        return Image.new("RGB", picture.size, SOLID)
    if settings.method == "pixelate":
        return _in_blocks(picture, settings.strength * side, Image.Resampling.NEAREST)
    radius = settings.strength * side
    return _in_blocks(picture, radius / 2, Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(radius))


def _in_blocks(picture: "Image", block_px: float, back: int) -> "Image":
    from PIL import Image

    few = (max(1, round(picture.width / max(block_px, 1))), max(1, round(picture.height / max(block_px, 1))))
    return picture.resize(few, Image.Resampling.BOX).resize(picture.size, Image.Resampling(back))
