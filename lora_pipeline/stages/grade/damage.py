"""Damage: have the pictures gone hard, noisy, or pale?"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lora_pipeline.records import Measure
from lora_pipeline.stages.grade.interval import told
from lora_pipeline.stages.grade.seen import Seen

if TYPE_CHECKING:
    from PIL.Image import Image

Luma = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

SHARPNESS, NOISE, SATURATION = "sharpness", "noise", "saturation"  # as the fields of `Glance`
HELD_OUT = "held-out loss"
FLOOR = {SHARPNESS: 1.0, NOISE: 1.0, SATURATION: 0.02}
"""What is added to both sides before a ratio is taken, in the measure's own unit: twice next to nothing is no damage."""
TILE_PX = 8
FLATTEST = 4  # one of so many tiles is asked for the noise: texture passes for noise


def sharpness(luma: Luma) -> float:
    """Variance of the Laplacian (Pech-Pacheco et al. 2000) of a luma of H×W, 0 to 255, at least 3×3."""
    around = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:]
    return float((around - 4 * luma[1:-1, 1:-1]).var())


def noise(luma: Luma) -> float:
    """Standard deviation of the noise in levels of 255 (Immerkær 1996, "Fast noise variance estimation", eq. 3) in the flattest quarter of
    a luma's (H×W, 0 to 255, at least 10×10) tiles of 8×8 px; their median.
    """
    # The difference of two Laplacians, [[1, -2, 1], [-2, 4, -2], [1, -2, 1]]: a second difference each way.
    second: Any = np.abs(np.diff(np.diff(luma, 2, axis=0), 2, axis=1))
    rows, columns = (length // TILE_PX for length in second.shape)
    tiles = second[: rows * TILE_PX, : columns * TILE_PX].reshape(rows, TILE_PX, columns, TILE_PX).mean((1, 3)).ravel()
    flattest = np.sort(tiles)[: max(1, len(tiles) // FLATTEST)]
    return float(np.sqrt(np.pi / 2) / 6 * np.median(flattest))


def saturation(picture: "Image") -> float:
    """Mean saturation (HSV) of an RGB picture, 0 to 1."""
    return float(np.asarray(picture.convert("HSV"))[..., 1].mean() / 255)


def times(measure: Measure) -> float | None:
    """How many times the base model's a value is, at least 1 whichever way it went; None if either is not known."""
    if measure.value is None or measure.base is None:
        return None
    floor = FLOOR[measure.name]
    ratio = (measure.value + floor) / (measure.base + floor)
    return max(ratio, 1 / ratio)


def damage(pictures: Sequence[Seen], base: Sequence[Seen], held_out: tuple[float, float] | None) -> list[Measure]:
    """Sharpness, noise and saturation, each near the base model's or damaged; and the held-out loss.

    Args:
        held_out: the mean loss on the photos that trained nothing, of the epoch and of the base model; None if there are none.
    """
    measures = [
        told(name, "damage", "same", _each(pictures, name), _each(base, name), middle=np.mean) for name in FLOOR
    ]
    if held_out is not None:
        loss, untrained = held_out
        measures.append(Measure(HELD_OUT, "damage", "less", round(loss, 5), base=round(untrained, 5)))
    return measures


def _each(pictures: Sequence[Seen], name: str) -> list[float | None]:
    return [None if one.glance is None else getattr(one.glance, name) for one in pictures]
