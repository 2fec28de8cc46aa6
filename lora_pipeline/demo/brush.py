"""A canvas with two strokes: a hard shape and a soft shade. Everything drawn is one of the two.

Coordinates are (x, y) in pixels of the finished picture, origin top left. The canvas is drawn `oversample` times larger and
averaged down, which is where the smooth edges come from. Shades are blurred at a low resolution and enlarged, because a
blur has no detail to lose and a Gaussian at 2,000 px would cost more than everything else together.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from lora_pipeline.demo.palette import Rgb

Points: TypeAlias = NDArray[np.float64]
"""N x 2, (x, y)."""


def points(*pairs: tuple[float, float]) -> Points:
    """The pairs as an N x 2 array."""
    return np.array(pairs, dtype=np.float64)


def ellipse(x: float, y: float, rx: float, ry: float, count: int = 28) -> Points:
    """The outline of an upright ellipse about (x, y)."""
    turn = np.linspace(0.0, 2 * np.pi, count, endpoint=False)
    return np.stack([x + rx * np.cos(turn), y + ry * np.sin(turn)], axis=1)


def smooth(control: Points, closed: bool = True, steps: int = 6) -> Points:
    """A Catmull-Rom curve through the control points."""
    if closed:
        padded = np.concatenate([control[-1:], control, control[:2]])
    else:
        padded = np.concatenate([control[:1], control, control[-1:]])
    p0, p1, p2, p3 = padded[:-3, None], padded[1:-2, None], padded[2:-1, None], padded[3:, None]
    t = np.linspace(0.0, 1.0, steps, endpoint=False)[None, :, None]
    curve = 0.5 * (2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3)
    flat: Points = curve.reshape(-1, 2)
    return flat if closed else np.concatenate([flat, control[-1:]])


def ribbon(line: Points, widths: Points) -> Points:
    """The outline of a stroke along `line` (N x 2) whose half width at each point is `widths` (N)."""
    ahead: Points = np.gradient(line, axis=0)
    length: Points = np.maximum(np.linalg.norm(ahead, axis=1, keepdims=True), 1e-9)
    aside: Points = np.stack([-ahead[:, 1], ahead[:, 0]], axis=1) / length * widths[:, None]
    return np.concatenate([line + aside, (line - aside)[::-1]])


class Canvas:
    """An RGB picture of `width` x `height` px under the brush."""

    def __init__(self, width: int, height: int, oversample: int, colour: Rgb) -> None:
        self.width = width
        self.height = height
        self.oversample = oversample
        self._image: Image.Image = Image.new("RGB", (width * oversample, height * oversample), colour)
        self._draw: Any = ImageDraw.Draw(self._image)

    def _corners(self, shape: Points, margin: float) -> tuple[int, int, int, int] | None:
        low = np.floor(shape.min(axis=0) - margin).astype(int)
        high = np.ceil(shape.max(axis=0) + margin).astype(int) + 1
        left, top = max(0, int(low[0])), max(0, int(low[1]))
        right, bottom = min(self._image.width, int(high[0])), min(self._image.height, int(high[1]))
        return (left, top, right, bottom) if right > left and bottom > top else None

    def fill(self, shape: Points, colour: Rgb, within: Image.Image | None = None) -> None:
        """A hard-edged shape; with `within` (a mask from `mask`), only the part inside it."""
        big = shape * self.oversample
        if within is None:
            self._draw.polygon([tuple(p) for p in big.tolist()], fill=colour)
            return
        box = self._corners(big, 1)
        if box is None:
            return
        stencil = Image.new("L", (box[2] - box[0], box[3] - box[1]))
        ImageDraw.Draw(stencil).polygon([tuple(p) for p in (big - np.array(box[:2])).tolist()], fill=255)
        self._image.paste(colour, box, ImageChops.multiply(stencil, within.crop(box)))

    def line(self, path: Points, colour: Rgb, width: float) -> None:
        """A line with round ends, `width` px thick."""
        self.fill(ribbon(path, np.full(len(path), width / 2)), colour)
        for x, y in (path[0], path[-1]):
            self.fill(ellipse(float(x), float(y), width / 2, width / 2, 12), colour)

    def mask(self, *shapes: Points) -> Image.Image:
        """A mask (L, 0 or 255, oversampled size) of the union of the shapes."""
        stencil = Image.new("L", self._image.size)
        brush = ImageDraw.Draw(stencil)
        for shape in shapes:
            brush.polygon([tuple(p) for p in (shape * self.oversample).tolist()], fill=255)
        return stencil

    def shade(
        self, shape: Points, colour: Rgb, strength: float, blur: float, within: Image.Image | None = None
    ) -> None:
        """A soft patch: the shape blurred by `blur` px, laid on with `strength` (0..1)."""
        big, spread = shape * self.oversample, max(blur * self.oversample, 0.6)
        box = self._corners(big, 2.5 * spread)
        if box is None:
            return
        less = max(1.0, spread / 2.0)
        size = (max(2, round((box[2] - box[0]) / less)), max(2, round((box[3] - box[1]) / less)))
        scale = np.array([size[0] / (box[2] - box[0]), size[1] / (box[3] - box[1])])
        stencil = Image.new("L", size)
        ImageDraw.Draw(stencil).polygon(
            [tuple(p) for p in ((big - np.array(box[:2])) * scale).tolist()], fill=round(255 * strength)
        )
        stencil = stencil.filter(ImageFilter.GaussianBlur(spread / less))
        stencil = stencil.resize((box[2] - box[0], box[3] - box[1]), Image.Resampling.BILINEAR)
        if within is not None:
            stencil = ImageChops.multiply(stencil, within.crop(box))
        self._image.paste(colour, box, stencil)

    def finished(self) -> Image.Image:
        """The picture at its own size."""
        return self._image.reduce(self.oversample) if self.oversample > 1 else self._image
