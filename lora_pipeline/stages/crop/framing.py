"""Where to cut: pure geometry, no pixels. All boxes are pixels of the upright photo unless they are said to be the crop's."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lora_pipeline.records import Box, Framing

Size = tuple[int, int]

SIDE_IN_FACES = {"close": 2.2, "medium": 3.8, "full": 11.0}
"""Side of the square in heights of the face's box (brow to chin): a head with its hair is 1.4 of these, so it fills 64 % of a
close crop; a grown person is 10 to 11 from sole to crown."""

UPRIGHT: dict[Framing, tuple[float, float]] = {"close": (1.0, 2.2), "medium": (0.8, 4.3), "full": (2 / 3, 11.0)}
"""Of a crop that need not be square: width over height, and height in heights of the face's box. A medium one reaches to the waist, and is
hardly narrower than the square."""

FIGURE = 1.3
"""Half the width of the subject, shoulders and hair, in sides of the face's box."""

LOOKS_ASIDE_FROM_DEG = 12.0
"""A head turned less looks at the camera, and needs no room at a side."""

EYES_DOWN = 0.3
"""The eyes lie so many of its heights below the top of the face's box."""

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
    size_px: Size
    reason: str = ""


@dataclass(frozen=True)
class Placing:
    """Where about the face a crop is put.

    Args:
        off_centre, direction_deg: how far, as a share of its sides, and where to the crop is moved from its place about the face (0°
            right, 90° down). It never cuts the face.
        thirds: whether face and eyes come to lie on third lines: see `around`.
        yaw_deg: where to the head is turned, positive to the picture's right.
        avoid: other people's faces, which are to lie outside if that can be: see `beside`.
        avoid_text: text, which is to lie outside too, but after the faces.
        body: the subject, hair to feet, where that is known: what a full crop shows, and what others may not push out of a crop.
        avoid_persons: other people, whole, who are to lie outside too, but after all else.
    """

    off_centre: float = 0.0
    direction_deg: float = 0.0
    thirds: bool = False
    yaw_deg: float = 0.0
    avoid: tuple[Box, ...] = ()
    avoid_text: tuple[Box, ...] = ()
    body: Box | None = None
    avoid_persons: tuple[Box, ...] = ()


CENTRED = Placing()


def plan(
    trim: Box,
    face: Box | None,
    framings: Sequence[Framing],
    size_px: int,
    max_enlargement: float,
    placing: Placing = CENTRED,
    shapes: Sequence[Size] = (),
) -> list[Cut]:
    """The crops of one photo, in the order of `framings`.

    Args:
        trim: what of the photo may be used; no region leaves it.
        face: the subject's, or None, which only `whole` can do without.
        size_px: side of the square crops; a whole picture has about this area.
        max_enlargement: a crop that would have to be enlarged more gets a reason instead.
        placing: where about the face.
        shapes: sizes (width, height) of which each crop takes the one whose shape is nearest to what its framing wants; a whole
            picture keeps its own shape. Empty for squares.
    """
    cuts: list[Cut] = []
    for framing in dict.fromkeys(framings):
        if framing == "whole":
            region, size = whole(trim, size_px)
        elif face is not None:
            size = wanted(framing, shapes) if shapes else (size_px, size_px)
            body = placing.body if framing == "full" else None
            least: Framing = "medium" if body else framing  # where a body says how large, no smaller than a medium one
            faces_high = UPRIGHT[least][1] if shapes else SIDE_IN_FACES[least]
            region = around(trim, face, faces_high, size[0] / size[1], placing, framing != "full", body)
            region = beside(region, trim, face, placing)
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


def wanted(framing: Framing, shapes: Sequence[Size]) -> Size:
    """Of some sizes the one whose shape is nearest to what a framing wants: a full body stands upright."""
    ratio = UPRIGHT[framing][0]
    return min(shapes, key=lambda size: (abs(math.log(size[0] / size[1] / ratio)), -size[0] * size[1], size))


def around(
    trim: Box,
    face: Box,
    faces_high: float,
    ratio: float = 1.0,
    placing: Placing = CENTRED,
    third_down: bool = True,
    body: Box | None = None,
) -> Box:
    """The region about a face: inside `trim`, with the head inside it as far as that can be.

    Where it would leave the photo it is moved; where it is larger than the photo it is made smaller; it is never padded.

    On thirds, the middle of the face lies on the left third line if the head is turned to the picture's right, and on the right
    one if it is turned to the left, so that there is room where it looks (of a head turned not at all, `direction_deg` has the
    say); and the eyes on the upper third line, but for a whole body, whose feet that would cut.

    Args:
        faces_high: height of the region in heights of the face's box.
        ratio: its width over its height.
        third_down: whether, on thirds, the eyes come to lie on the upper line.
        body: what is to be shown whole, with air above and below: the region is as large as that takes, and at least
            `faces_high`. None where nobody knows how far the subject reaches.
    """
    # A face cut in half by the photo's edge is as high as a whole one, but not as wide.
    face_side = max(face[2] - face[0], face[3] - face[1])
    room_across, room_down = trim[2] - trim[0], trim[3] - trim[1]
    figure = None if body is None else _figure(face, body, trim)
    wanted_high = faces_high * face_side
    if figure:
        wanted_high = max(wanted_high, max(figure[3] - figure[1], (figure[2] - figure[0]) / ratio) / (1 - 2 * HEADROOM))
    high = min(round(wanted_high), room_down, round(room_across / ratio))
    wide = min(round(high * ratio), room_across)
    turn = math.radians(placing.direction_deg)
    across, down, above = 0.5, HEADROOM, FACE_DOWN * face_side
    if placing.thirds:
        turned = placing.yaw_deg if abs(placing.yaw_deg) >= LOOKS_ASIDE_FROM_DEG else math.cos(turn)
        across = 1 / 3 if turned > 0 else 2 / 3
        if third_down:
            down, above = 1 / 3, (0.5 - EYES_DOWN) * face_side
    middle_x, middle_y = (face[0] + face[2]) / 2, (face[1] + face[3]) / 2
    if figure and not placing.thirds:
        middle_x = (figure[0] + figure[2]) / 2
    if figure and figure[3] - figure[1] <= high:
        middle_y, above, down = (figure[1] + figure[3]) / 2, 0.0, 0.5
    left = middle_x - (across + placing.off_centre * math.cos(turn)) * wide
    top = middle_y - above - (down + placing.off_centre * math.sin(turn)) * high
    # The face has the last word where the region is too small for the head, and the head where it is too small for the figure.
    for box in (*([figure] if figure else []), _head(face, trim), face):
        left = _holding(left, wide, box[0], box[2])
        top = _holding(top, high, box[1], box[3])
    start_x = round(min(max(left, trim[0]), trim[2] - wide))
    start_y = round(min(max(top, trim[1]), trim[3] - high))
    return (start_x, start_y, start_x + wide, start_y + high)


def beside(region: Box, trim: Box, face: Box, placing: Placing) -> Box:
    """The region moved, no farther than it must, so that as few as can be of the others' faces, texts, heads and bodies reach into it.

    It keeps its size, stays inside `trim`, all that it showed of the subject's figure (head and shoulders, and down from there; its
    body, where that is known) stays in it, and the face in its middle half from side to side. Where that is no gain, it stays where it is.
    """
    if not any(_meet(region, box) for box in (*placing.avoid, *placing.avoid_text, *placing.avoid_persons)):
        return region
    wide, high = region[2] - region[0], region[3] - region[1]
    side, middle = max(face[2] - face[0], face[3] - face[1]), (face[0] + face[2]) / 2
    figure = _head(face, trim)
    if placing.body and wide > 2 * FIGURE * side:
        figure = _figure(face, placing.body, trim)
    elif wide > 2 * FIGURE * side:
        figure = (round(middle - FIGURE * side), figure[1], round(middle + FIGURE * side), region[3])
    held = [max(region[0], figure[0]), max(region[1], figure[1]), min(region[2], figure[2]), min(region[3], figure[3])]
    sides = (min(region[0], round(middle - 0.75 * wide)), max(region[0], round(middle - 0.25 * wide)))
    low = (max(trim[0], held[2] - wide, sides[0]), max(trim[1], held[3] - high))
    most = (min(trim[2] - wide, held[0], sides[1]), min(trim[3] - high, held[1]))
    reachable = (low[0], low[1], most[0] + wide, most[1] + high)
    faces, texts, bodies = (
        [box for box in boxes if _meet(reachable, box)]
        for boxes in (placing.avoid, placing.avoid_text, placing.avoid_persons)
    )
    heads = [_head(box, trim) for box in faces]
    edges = [*faces, *texts, *heads, *bodies]
    lefts = {region[0], *(left for box in edges for left in (box[2], box[0] - wide) if low[0] <= left <= most[0])}
    tops = {region[1], *(top for box in edges for top in (box[3], box[1] - high) if low[1] <= top <= most[1])}

    def cost(moved: Box) -> tuple[list[int], int, Box]:
        reach = [sum(_meet(moved, box) for box in boxes) for boxes in (faces, texts, heads, bodies)]
        return reach, abs(moved[0] - region[0]) + abs(moved[1] - region[1]), moved

    return min(((left, top, left + wide, top + high) for left in lefts for top in tops), key=cost)


def _head(face: Box, trim: Box) -> Box:
    """The head of a face, as far as it is in the photo."""
    side = max(face[2] - face[0], face[3] - face[1])
    return (
        max(trim[0], round(face[0] - HEAD[0] * side)),
        max(trim[1], round(face[1] - HEAD[1] * side)),
        min(trim[2], round(face[2] + HEAD[2] * side)),
        min(trim[3], round(face[3] + HEAD[3] * side)),
    )


def _figure(face: Box, body: Box, trim: Box) -> Box:
    """Body and head together, as far as they are in the photo: a detector's box of a person may begin below the hair."""
    head = _head(face, trim)
    return (
        max(trim[0], min(body[0], head[0])),
        max(trim[1], min(body[1], head[1])),
        min(trim[2], max(body[2], head[2])),
        min(trim[3], max(body[3], head[3])),
    )


def _meet(a: Box, b: Box) -> bool:
    return min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1])


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
