"""Plain bars at a picture's edges: letterbox, pillarbox, frame.

A bar is a run of lines of one colour that ends abruptly, all along, in something else. Three things keep a studio's plain
background whole: its subject does not begin all along a straight line; only a black bar may be on one side alone, and then
the whole line after it must differ; and within a frame the picture is at least half of the whole.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_pipeline.records import Box

Pixels = NDArray[np.uint8]

LIKE = 12  # levels of 255 by which a bar's pixels may differ from its colour: the noise of a JPEG
UNLIKE = 24  # levels by which what follows differs
STRAY = 0.01  # share of a bar's line that may differ
EDGE_PX = 16  # a JPEG's block of colour, over which an edge may smear
EDGE_SHARE = (
    20  # but no more than this part of the edge's length: a ball's edge is as straight over a fifth of its radius
)
ABRUPT_PX = 3  # lines within which most of an edge comes
BLACK = 20  # brightest channel of a black bar
BLACK_EDGE, OTHER_EDGE = 0.6, 0.9  # share of the line after a bar that must differ: pictures have dark edges, too
LEFT = 0.5  # least share of the area that is left
LEFT_BETWEEN_BLACK = 0.3  # between two black bars: a phone's upright video on a wide screen is 0.32
DEEPEST = 3  # frames within frames


def trim_box(pixels: Pixels) -> Box:
    """Where the picture is, within its bars.

    Args:
        pixels: height × width × 3, RGB, 0 to 255.

    Returns:
        (left, top, right, bottom) in pixels; the whole picture if it has no bars or is plain all over.
    """
    height, width = pixels.shape[:2]
    left, top, right, bottom = 0, 0, width, height
    for _ in range(DEEPEST):
        sides = _sides(pixels[top:bottom, left:right])
        if sides == (0, 0, 0, 0):
            break
        left, top, right, bottom = left + sides[0], top + sides[1], right - sides[2], bottom - sides[3]
    return left, top, right, bottom


@dataclass(frozen=True)
class _Run:
    """Lines of one colour at one side."""

    lines: int
    colour: NDArray[np.int16]

    @property
    def black(self) -> bool:
        return int(self.colour.max()) <= BLACK

    def like(self, other: "_Run") -> bool:
        return bool(self.lines and other.lines and np.abs(self.colour - other.colour).max() <= LIKE)


def _sides(pixels: Pixels) -> tuple[int, int, int, int]:
    """Widths of the bars at the left, top, right and bottom."""
    views = [_from_side(pixels, side) for side in range(4)]
    runs = [_run(view) for view in views]
    found = [0, 0, 0, 0]
    for side, (view, run) in enumerate(zip(views, runs, strict=True)):
        # A corner of a frame belongs to two bars: whether the picture begins abruptly is asked between the other two.
        first, last = (other.lines if other.like(run) else 0 for other in (runs[1 - side % 2], runs[3 - side % 2]))
        between = view[:, first : view.shape[1] - last]
        found[side] = _edge(between, run, BLACK_EDGE if run.black else OTHER_EDGE)
    widths = [0, 0, 0, 0]
    for side, (view, run) in enumerate(zip(views, runs, strict=True)):
        opposite = (side + 2) % 4
        if found[opposite] and run.like(runs[opposite]):
            widths[side] = found[side]
        elif run.black:
            widths[side] = _edge(view, run, OTHER_EDGE)
    height, width = pixels.shape[:2]
    left = (width - widths[0] - widths[2]) * (height - widths[1] - widths[3]) / (width * height)
    frame = (widths[0] or widths[2]) and (widths[1] or widths[3])
    black = all(run.black for run, lines in zip(runs, widths, strict=True) if lines)
    least = LEFT_BETWEEN_BLACK if black and not frame else LEFT
    return (0, 0, 0, 0) if left < least else (widths[0], widths[1], widths[2], widths[3])


def _from_side(pixels: Pixels, side: int) -> Pixels:
    """The picture as lines counted from the left, top, right or bottom; each line from the top, or from the left."""
    lines = pixels.swapaxes(0, 1) if side % 2 == 0 else pixels
    return lines[::-1] if side >= 2 else lines


def _run(lines: Pixels) -> _Run:
    colour = np.median(lines[0], axis=0).astype(np.int16)
    for number in range(len(lines)):
        if _unlike(lines[number], colour, LIKE) > STRAY:
            return _Run(number, colour)
    return _Run(len(lines), colour)


def _edge(lines: Pixels, run: _Run, least: float) -> int:
    """The line at which the picture begins, if it does so all along at once; else 0.

    It is the first after a run of which at least such a share differs. Shortly before, little may: a JPEG's noise does, a
    thing's edge that is not quite upright differs line by line more.
    """
    if not run.lines:
        return 0
    within = min(EDGE_PX, max(2, lines.shape[1] // EDGE_SHARE))
    beyond = lines[run.lines : run.lines + within + 1]
    shares = [_unlike(line, run.colour, UNLIKE) for line in beyond]
    first = next((number for number, share in enumerate(shares[:within]) if share >= least), None)
    if first is None or (first >= ABRUPT_PX and shares[first - ABRUPT_PX] > shares[first] / 2):
        return 0
    strengths = [float(np.abs(line - run.colour).mean()) for line in beyond[first : first + 2]]
    return run.lines + first + (strengths[0] < 0.8 * strengths[-1])  # a line that is half bar, half picture is left out


def _unlike(line: Pixels, colour: NDArray[np.int16], levels: int) -> float:
    """Share of a line's pixels that differ from a colour by more than so many levels in some channel."""
    return float((np.abs(line - colour).max(axis=1) > levels).mean()) if len(line) else 0.0
