"""How a picture looks as a whole, measured without a model: for subjects without a face."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

LOOK_VERSION = "1"
_SIDE_PX = 64
_LEVELS = 4  # of each colour channel
_DIRECTIONS = 8  # of edges, over half a turn


def look(picture: "Image") -> tuple[float, ...]:
    """A picture's colours and edge directions.

    **This is a weak measure.** It sees neither shape nor content: another dog of that colour on that sofa is nearer to the
    training pictures than the same dog on a beach. It serves to say that pictures went grey, or far from everything
    seen, and to order epochs when nothing better is there. Look at the grid.

    Args:
        picture: any size; RGB, 8 bits. It is measured at 64×64.

    Returns:
        72 numbers of 0 to 1: 64 of colour (share of pixels, 4 levels a channel, red slowest) that sum to 1, then 8 of edges
        (share of gradient magnitude by direction) that sum to 1, or are all 0 in a picture without an edge.
    """
    import numpy as np
    from PIL import Image

    small = np.asarray(
        picture.convert("RGB").resize((_SIDE_PX, _SIDE_PX), Image.Resampling.BOX), dtype=np.float64
    )  # H×W×3, 0 to 255
    levels = np.minimum(small * _LEVELS / 256, _LEVELS - 1).astype(int)
    colours = np.bincount(
        (levels[..., 0] * _LEVELS + levels[..., 1]).ravel() * _LEVELS + levels[..., 2].ravel(), minlength=_LEVELS**3
    )
    down, right = np.gradient(small @ np.array([0.299, 0.587, 0.114]))  # of the luma
    strength = np.hypot(down, right)
    direction = np.minimum((np.arctan2(down, right) % np.pi) / np.pi * _DIRECTIONS, _DIRECTIONS - 1).astype(int)
    edges = np.bincount(direction.ravel(), weights=strength.ravel(), minlength=_DIRECTIONS)
    total = edges.sum()
    return (*(colours / colours.sum()).tolist(), *(edges / total if total > 0 else edges).tolist())


def look_distance(a: "tuple[float, ...]", b: "tuple[float, ...]") -> float:
    """Half the sum of absolute differences, of colours and of edges, each 0 to 1, averaged: 0 is the same look, 1 nothing in common."""
    return look_distances(a, [b])[0]


def look_distances(one: "tuple[float, ...]", others: Sequence["tuple[float, ...]"]) -> list[float]:
    """`look_distance` of one look to many."""
    import numpy as np

    apart = np.abs(np.asarray(others, dtype=np.float64) - np.asarray(one)) / 2
    return ((apart[:, : _LEVELS**3].sum(1) + apart[:, _LEVELS**3 :].sum(1)) / 2).tolist()
