"""How far an autoencoder sees: measured on its own weights, since its theory says everywhere.

A stack of 3×3 convolutions and three halvings reaches some 100 px, group normalisation and attention reach the whole picture,
but nearly all of what a latent is comes from close by. Measured on the small model that ships here, ring after ring of cells
(8 px each) around a changed square of 48 px in 256 px, as a share of the latents' standard deviation: 20 %, 5 %, 1.2 %, 0.5 %,
0.4 %, and then 0.4 to 0.7 % to the picture's edge. That far level is group normalisation's: it moves all cells by the same
gain, whatever the distance, and so tells nothing of what was where. It is taken off before the rings are judged.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

SEEN = 0.01  # a latent that moves by less than this share of the latents' standard deviation has not seen a pixel
_CELLS = 32  # side of the test picture, in latent cells
_CHANGED = 6  # side of the square that is changed in it, in latent cells


def measured_reach_px(encode: "Callable[[Tensor], Tensor]", factor_px: int) -> int:
    """Distance from a changed area beyond which latents do not move, in pixels; a multiple of the factor.

    Two pictures differ inside a square alone. For each ring of latent cells around the square: the root mean square
    of the latents' difference, less that of the outer half of the rings, by the standard deviation of all latents. The reach
    ends before the first ring at which it is less than `SEEN`.

    Args:
        encode: pictures (B×3×H×W, float32, −1 to 1) to latents (B×C×h×w).
        factor_px: pixels a side of one latent cell.
    """
    import torch

    side_px = _CELLS * factor_px
    plain = _smooth_noise(side_px, seed=1)
    changed = plain.clone()
    begin, end = (_CELLS - _CHANGED) // 2, (_CELLS + _CHANGED) // 2
    inside = slice(begin * factor_px, end * factor_px)
    changed[..., inside, inside] = _smooth_noise(side_px, seed=2)[..., inside, inside]
    with torch.no_grad():
        latents = torch.cat([encode(plain), encode(changed)]).float().cpu()
    moved = (latents[0] - latents[1]).square().mean(0)  # h×w
    spread = float(latents[0].std())
    at = torch.arange(_CELLS)
    off = torch.maximum(begin - at, at - (end - 1)).clamp(min=0)
    ring = torch.maximum(off[:, None], off[None, :])  # cells from the square; 0 inside it
    rings = [float(moved[ring == cells].mean()) for cells in range(1, int(ring.max()) + 1)]
    outer = rings[len(rings) // 2 :]
    far = sum(outer) / len(outer)
    return (
        next((cells for cells, square in enumerate(rings) if square - far < (SEEN * spread) ** 2), len(rings))
        * factor_px
    )


def _smooth_noise(side_px: int, seed: int) -> "Tensor":
    """A picture-like pattern, 1×3×side×side in −1 to 1: noise at four scales, the coarse ones stronger, as in photos."""
    import torch
    import torch.nn.functional as F

    generator = torch.Generator().manual_seed(seed)
    picture = torch.zeros(1, 3, side_px, side_px)
    for scale in (2, 8, 32, 64):
        coarse = torch.randn(1, 3, max(1, side_px // scale), max(1, side_px // scale), generator=generator)
        picture += F.interpolate(coarse, size=(side_px, side_px), mode="bilinear", align_corners=False) * math.sqrt(
            scale / 64
        )
    return (picture * 0.5).clamp(-1, 1)
