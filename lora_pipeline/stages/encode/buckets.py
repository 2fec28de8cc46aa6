"""Which size a picture is trained at: sizes of like area and several aspect ratios, as kohya-ss/sd-scripts counts them.

Aspect-ratio bucketing: NovelAI 2022, "Improvements on Stable Diffusion"; `make_bucket_resolutions` and `BucketManager` of sd-scripts.
Two defaults differ from sd-scripts': a bucket's area is as near to the square's as its step allows, and a bucket that would fill no
batch joins its neighbour. `bucket_area: at_most` with `merge_small_buckets: false` gives sd-scripts' own buckets.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from lora_pipeline.records import Box
from lora_pipeline.settings import EncodeSettings

if TYPE_CHECKING:
    from PIL.Image import Image

Size = tuple[int, int]


@dataclass(frozen=True)
class Planned:
    """Where a picture goes: its bucket, and the one that its own shape asks for (another if that one would fill no batch)."""

    bucket: Size
    own: Size


def buckets(settings: EncodeSettings) -> tuple[Size, ...]:
    """All sizes (width, height) in pixels, narrowest first.

    The square of `resolution_px`; and for each width between the shortest and the longest side, in steps of `bucket_step_px`,
    a height that is a multiple of the step, and the same turned. The height is the one whose area is nearest to the square's;
    or, for `at_most`, the greatest whose area is at most the square's.
    """
    side = settings.resolution_px
    shortest, longest = settings.bucket_min_px or side // 2, settings.bucket_max_px or side * 2
    return _sizes(side, settings.bucket_step_px, shortest, longest, settings.bucket_area == "at_most")


@cache
def _sizes(side: int, step: int, shortest: int, longest: int, at_most: bool) -> tuple[Size, ...]:
    sizes = {(side, side)}
    for width in range(math.ceil(shortest / step) * step, longest + 1, step):
        height = min(longest, side**2 // width) // step * step if at_most else round(side**2 / width / step) * step
        if shortest <= height <= longest and height != width:
            sizes |= {(width, height), (height, width)}
    return tuple(sorted(sizes))


def bucket_of(width_px: int, height_px: int, settings: EncodeSettings) -> Size | None:
    """The bucket (width, height) whose aspect ratio is nearest to the picture's; of two as near, the larger.

    With `bucket_no_upscale` the picture's own size, brought down to the training size's area if it is larger, and both sides to
    multiples of the step; None if that leaves nothing.
    """
    if settings.bucket_no_upscale:
        return _within(width_px, height_px, settings.resolution_px**2, settings.bucket_step_px)
    ratio = width_px / height_px
    return min(buckets(settings), key=lambda size: (abs(size[0] / size[1] - ratio), -size[0] * size[1]))


def _within(width: int, height: int, area: int, step: int) -> Size | None:
    """`BucketManager.select_bucket` of sd-scripts with `no_upscale`, rounding where it rounds."""
    if width * height > area:
        ratio = width / height
        by_width = _stepped(math.sqrt(area * ratio), step)
        by_height = _stepped(math.sqrt(area / ratio), step)
        if min(by_width, by_height) < step:
            return None
        tall, wide = _stepped(by_width / ratio, step), _stepped(by_height * ratio, step)
        if tall and abs(by_width / tall - ratio) < abs(wide / by_height - ratio):
            width, height = by_width, int(by_width / ratio + 0.5)
        else:
            width, height = int(by_height * ratio + 0.5), by_height
    bucket = (width // step * step, height // step * step)
    return bucket if min(bucket) else None


def _stepped(side: float, step: int) -> int:
    return int(side + 0.5) // step * step


def plan(sizes: Mapping[str, Size], settings: EncodeSettings, batch_size: int) -> dict[str, Planned]:
    """The bucket of each picture that has one.

    Args:
        sizes: width and height of each picture, pixels, by id.
        settings: of the buckets; how often each picture is seen.
        batch_size: a bucket whose pictures × repeats are fewer joins the occupied one whose aspect ratio is nearest (the
            smallest such bucket first), unless `merge_small_buckets` is off or it would have to enlarge and must not.
    """
    own = {id: bucket for id, size in sizes.items() if (bucket := bucket_of(*size, settings)) is not None}
    groups: dict[Size, list[str]] = {}
    for id, bucket in own.items():
        groups.setdefault(bucket, []).append(id)
    while settings.merge_small_buckets:
        short = [bucket for bucket, ids in groups.items() if len(ids) * settings.repeats < batch_size]
        merges = [
            (len(groups[bucket]), bucket, into)
            for bucket in short
            if (into := _neighbour(bucket, groups, sizes, settings)) is not None
        ]
        if not merges:
            break
        _, bucket, into = min(merges)
        groups[into] += groups.pop(bucket)
    return {id: Planned(bucket, own[id]) for bucket, ids in groups.items() for id in ids}


def _neighbour(
    bucket: Size, groups: Mapping[Size, list[str]], sizes: Mapping[str, Size], settings: EncodeSettings
) -> Size | None:
    others = [other for other in groups if other != bucket]
    if settings.bucket_no_upscale:
        pictures = [sizes[id] for id in groups[bucket]]
        others = [
            other for other in others if all(other[0] <= width and other[1] <= height for width, height in pictures)
        ]
    # how many times wider: 2:1 is as far from 1:1 as 1:2 is
    return min(
        others,
        key=lambda other: (abs(math.log(other[0] * bucket[1] / (other[1] * bucket[0]))), -other[0] * other[1], other),
        default=None,
    )


def placed(picture_px: Size, bucket: Size, keep_area_px: int = 0) -> tuple[Size, tuple[int, int, int, int]]:
    """How a picture comes into its bucket: the size it is brought to, and the centre that is cut out of that (a Pillow box).

    Args:
        picture_px: width and height.
        bucket: width and height.
        keep_area_px: a picture of at most this area that is no smaller than its bucket keeps its size.
    """
    width, height = picture_px
    scale = max(bucket[0] / width, bucket[1] / height)
    if scale <= 1 and width * height <= keep_area_px:
        scale = 1.0
    size = (max(bucket[0], round(width * scale)), max(bucket[1], round(height * scale)))
    left, top = (size[0] - bucket[0]) // 2, (size[1] - bucket[1]) // 2
    return size, (left, top, left + bucket[0], top + bucket[1])


def box_in_bucket(box: Box, picture_px: Size, bucket: Size, keep_area_px: int = 0) -> Box | None:
    """A box of a picture's own pixels, in its bucket's (whole pixels); None if nothing of it comes into the bucket. As in `placed`."""
    size, (left, top, _, _) = placed(picture_px, bucket, keep_area_px)
    x, y = size[0] / picture_px[0], size[1] / picture_px[1]
    moved = (
        max(0, round(box[0] * x) - left),
        max(0, round(box[1] * y) - top),
        min(bucket[0], round(box[2] * x) - left),
        min(bucket[1], round(box[3] * y) - top),
    )
    return moved if moved[0] < moved[2] and moved[1] < moved[3] else None


def into_bucket(picture: "Image", bucket: Size, keep_area_px: int = 0) -> "Image":
    """A picture brought to cover its bucket (Lanczos), and its centre; `keep_area_px` as in `placed`."""
    from PIL import Image

    size, centre = placed(picture.size, bucket, keep_area_px)
    return (picture if size == picture.size else picture.resize(size, Image.Resampling.LANCZOS)).crop(centre)
