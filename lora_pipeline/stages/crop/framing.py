"""Where to cut: pure geometry, no pixels. All boxes are pixels of the upright photo unless they are said to be the crop's."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lora_pipeline.records import Box, Framing

SIDE_IN_FACES = {"close": 2.2, "medium": 3.8, "full": 11.0}
"""Side of the square in heights of the face's box (brow to chin): a head with its hair is 1.4 of these, so it fills 64 % of a
close crop; a grown person is 10 to 11 from sole to crown."""

HEAD = (0.15, 0.5, 0.15, 0.15)
"""What of a head lies beyond the face's box at its left, top, right and bottom, as shares of the box's side."""

FACE_DOWN, HEADROOM = 1.05, 0.06
"""The middle of the face lies so many of its heights, and this share of the square's side, below the square's top."""

ALIKE = 0.9
"""Two framings whose regions have a larger IoU show the same."""


@dataclass(frozen=True)
class Cut:
    """One crop to be made, or why it is not.

    Args:
        framing: which.
        region: what to cut out.
        size_px: width and height of the crop.
        reason: why it is not made; empty if it is.
    """

    framing: Framing
    region: Box
    size_px: tuple[int, int]
    reason: str = ""


def plan(
    trim: Box,
    face: Box | None,
    framings: Sequence[Framing],
    size_px: int,
    max_enlargement: float,
    off_centre: float = 0.0,
    direction_deg: float = 0.0,
) -> list[Cut]:
    """The crops of one photo, in the order of `framings`.

    Args:
        trim: what of the photo may be used; no region leaves it.
        face: the subject's, or None, which only `whole` can do without.
        size_px: side of the square crops; a whole picture has about this area.
        max_enlargement: a crop that would have to be enlarged more gets a reason instead.
        off_centre, direction_deg: how far, as a share of its side, and where to the square is moved from its place about the
            face (0° right, 90° down). It never cuts the face.
    """
    cuts: list[Cut] = []
    for framing in dict.fromkeys(framings):
        if framing == "whole":
            region, size = whole(trim, size_px)
        elif face is not None:
            region, size = square(trim, face, framing, off_centre, direction_deg), (size_px, size_px)
        else:
            continue
        enlarged = size[0] / (region[2] - region[0])
        alike = next((cut.framing for cut in cuts if not cut.reason and iou(cut.region, region) > ALIKE), None)
        reason = ""
        if enlarged > max_enlargement:
            reason = f"would be enlarged {math.ceil(enlarged * 10) / 10:g} times, the limit is {max_enlargement:g}"
        elif alike:
            reason = f"shows nearly the same as the framing {alike}"
        cuts.append(Cut(framing, region, size, reason))
    return cuts


def square(trim: Box, face: Box, framing: Framing, off_centre: float = 0.0, direction_deg: float = 0.0) -> Box:
    """The square of a framing about a face: inside `trim`, with the head inside it as far as that can be.

    Where it would leave the photo it is moved; where it is larger than the photo's short side it is made smaller; it is
    never padded.
    """
    # A face cut in half by the photo's edge is as high as a whole one, but not as wide.
    face_side = max(face[2] - face[0], face[3] - face[1])
    side = min(round(SIDE_IN_FACES[framing] * face_side), trim[2] - trim[0], trim[3] - trim[1])
    turn = math.radians(direction_deg)
    left = (face[0] + face[2]) / 2 - (0.5 + off_centre * math.cos(turn)) * side
    top = (face[1] + face[3]) / 2 - FACE_DOWN * face_side - (HEADROOM + off_centre * math.sin(turn)) * side
    head = (
        max(trim[0], round(face[0] - HEAD[0] * face_side)),
        max(trim[1], round(face[1] - HEAD[1] * face_side)),
        min(trim[2], round(face[2] + HEAD[2] * face_side)),
        min(trim[3], round(face[3] + HEAD[3] * face_side)),
    )
    for box in (head, face):  # the face has the last word, where the square is too small for the head
        left = _holding(left, side, box[0], box[2])
        top = _holding(top, side, box[1], box[3])
    start_x = round(min(max(left, trim[0]), trim[2] - side))
    start_y = round(min(max(top, trim[1]), trim[3] - side))
    return (start_x, start_y, start_x + side, start_y + side)


def _holding(start: float, side: int, low: int, high: int) -> float:
    """The start nearest to `start` from which a side reaches over low to high, if it can."""
    return min(max(start, high - side), low) if high - low <= side else start


def whole(trim: Box, size_px: int) -> tuple[Box, tuple[int, int]]:
    """The whole picture at an area of about size_px² with its aspect ratio, both sides multiples of 8.

    Returns:
        the region, which is `trim` less the few pixels at two edges that make its ratio that of the size; and the size.
    """
    width, height = trim[2] - trim[0], trim[3] - trim[1]
    ratio = math.sqrt(width / height)
    across, down = max(8, round(size_px * ratio / 8) * 8), max(8, round(size_px / ratio / 8) * 8)
    scale = min(width / across, height / down)
    used_width, used_height = min(width, round(across * scale)), min(height, round(down * scale))
    left, top = trim[0] + (width - used_width) // 2, trim[1] + (height - used_height) // 2
    return (left, top, left + used_width, top + used_height), (across, down)


def inside(box: Box, region: Box, size_px: tuple[int, int]) -> Box | None:
    """A photo's box in the pixels of the crop made from `region`, cut to it; None if no part of it is there."""
    across, down = size_px[0] / (region[2] - region[0]), size_px[1] / (region[3] - region[1])
    left, right = (box[0] - region[0]) * across, (box[2] - region[0]) * across
    top, bottom = (box[1] - region[1]) * down, (box[3] - region[1]) * down
    cut = (
        max(0, math.floor(left)),
        max(0, math.floor(top)),
        min(size_px[0], math.ceil(right)),
        min(size_px[1], math.ceil(bottom)),
    )
    return cut if cut[0] < cut[2] and cut[1] < cut[3] else None


def iou(a: Box, b: Box) -> float:
    """Area shared by two boxes over the area of both together, 0 to 1."""
    shared = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / both if both else 0.0
