"""Which size a picture is trained at: sizes of like area and several aspect ratios, counted as kohya-ss/sd-scripts does.

Aspect-ratio bucketing: NovelAI 2022, "Improvements on Stable Diffusion"; `make_bucket_resolutions` of sd-scripts.
"""

import math
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

Size = tuple[int, int]


@cache
def buckets(resolution_px: int, step_px: int) -> tuple[Size, ...]:
    """All sizes (width, height) in pixels, narrowest first.

    The square of `resolution_px`; and for each width between its half and its double, in steps of `step_px`, the greatest
    height that is a multiple of the step and keeps the area at most the square's, and the same turned.
    """
    shortest, longest = resolution_px // 2, resolution_px * 2
    sizes = {(resolution_px, resolution_px)}
    for width in range(math.ceil(shortest / step_px) * step_px, longest + 1, step_px):
        height = min(longest, resolution_px**2 // width) // step_px * step_px
        if height >= shortest and height != width:
            sizes |= {(width, height), (height, width)}
    return tuple(sorted(sizes))


def bucket_of(width_px: int, height_px: int, resolution_px: int, step_px: int) -> Size:
    """The bucket (width, height) whose aspect ratio is nearest to the picture's; of two as near, the larger."""
    ratio = width_px / height_px
    return min(buckets(resolution_px, step_px), key=lambda size: (abs(size[0] / size[1] - ratio), -size[0] * size[1]))


def placed(picture_px: Size, bucket: Size) -> tuple[Size, tuple[int, int, int, int]]:
    """How a picture comes into its bucket: the size it is brought to, and the centre that is cut out of that (a Pillow box)."""
    width, height = picture_px
    scale = max(bucket[0] / width, bucket[1] / height)
    size = (max(bucket[0], round(width * scale)), max(bucket[1], round(height * scale)))
    left, top = (size[0] - bucket[0]) // 2, (size[1] - bucket[1]) // 2
    return size, (left, top, left + bucket[0], top + bucket[1])


def into_bucket(picture: "Image", bucket: Size) -> "Image":
    """A picture brought to cover its bucket (Lanczos), and its centre."""
    from PIL import Image

    size, centre = placed(picture.size, bucket)
    return (picture if size == picture.size else picture.resize(size, Image.Resampling.LANCZOS)).crop(centre)
