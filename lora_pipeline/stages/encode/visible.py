"""The loss mask, taken from pixels to latents: it grows by the autoencoder's reach, so that no latent that has seen a hidden
face is ever a target."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lora_pipeline.stages.encode.buckets import Size, placed

if TYPE_CHECKING:
    from PIL.Image import Image

_LANCZOS_PX = 3  # a resized pixel holds something of what was so far away


def hidden_pixels(mask: "Image", bucket: Size, keep_area_px: int = 0) -> NDArray[np.bool_]:
    """A picture's mask (mode L, 0 hidden) in its bucket's frame: height × width, true where anything hidden may show.

    `keep_area_px` as for the picture, in `placed`.
    """
    from PIL import Image

    size, centre = placed(mask.size, bucket, keep_area_px)
    hidden = np.asarray(mask) < 255
    if size == mask.size:
        return hidden[centre[1] : centre[3], centre[0] : centre[2]]
    share = Image.fromarray(hidden.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)
    return _grown(np.asarray(share) > 0, _LANCZOS_PX)[centre[1] : centre[3], centre[0] : centre[2]]


def visible_cells(hidden: NDArray[np.bool_], factor_px: int, reach_px: int) -> NDArray[np.bool_]:
    """Which latents have seen nothing hidden.

    Args:
        hidden: H × W pixels, true where hidden; H and W are multiples of the factor.
        factor_px: pixels a side of one latent cell.
        reach_px: a cell sees its own pixels and those within this distance of its edges.

    Returns:
        (H / factor) × (W / factor), true where no pixel within reach is hidden.
    """
    grown = _grown(hidden, reach_px)
    height, width = grown.shape
    return ~np.asarray(grown.reshape(height // factor_px, factor_px, width // factor_px, factor_px).any(axis=(1, 3)))


def _grown(area: NDArray[np.bool_], by_px: int) -> NDArray[np.bool_]:
    """The area and everything within so many pixels of it, along both axes."""
    return _grown_down(_grown_down(area, by_px).T, by_px).T


def _grown_down(area: NDArray[np.bool_], by_px: int) -> NDArray[np.bool_]:
    rows = len(area)
    counts = np.zeros((rows + 1, area.shape[1]), np.int64)  # of the rows before each
    np.cumsum(area, axis=0, out=counts[1:])
    ahead = np.minimum(np.arange(rows) + by_px + 1, rows)
    behind = np.maximum(np.arange(rows) - by_px, 0)
    return np.asarray(counts[ahead] > counts[behind])
