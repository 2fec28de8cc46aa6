"""How far an autoencoder sees: measured on its own weights, since its theory says everywhere.

A stack of 3×3 convolutions and three halvings reaches some 100 px, group normalisation and attention reach the whole picture,
but nearly all of what a latent is comes from close by. Measured on the small model that ships here, ring after ring of cells
(8 px each) around a changed square of 48 px in 256 px, as a share of the latents' standard deviation: 39 %, 10 %, 2.0 %, 0.6 %,
and from then on 0.1 to 0.2 %, so its reach is 24 px. Taken off before: what group normalisation does, which moves every cell by
one gain and one shift a channel (0.5 to 0.9 %), whatever the distance, and so tells nothing of what was where.
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

    Two pictures differ inside a square alone. The second's latents are explained by a gain and a shift a channel of the first's,
    fitted where it is far from the square. For each ring of latent cells around the square: the root mean square of what
    is left, by the standard deviation of all latents. The reach ends before the first ring at which that is less than `SEEN`.

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
    at = torch.arange(_CELLS)
    off = torch.maximum(begin - at, at - (end - 1)).clamp(min=0)
    ring = torch.maximum(off[:, None], off[None, :])  # cells from the square; 0 inside it
    left = _unexplained(latents[0], latents[1], ring > int(ring.max()) // 2).square().mean(0).sqrt() / latents[0].std()
    rings = [float(left[ring == cells].square().mean().sqrt()) for cells in range(1, int(ring.max()) + 1)]
    return next((cells for cells, share in enumerate(rings) if share < SEEN), len(rings)) * factor_px


def _unexplained(first: "Tensor", second: "Tensor", far: "Tensor") -> "Tensor":
    """What of the second latents (C×h×w) is no gain and shift, fitted by channel over the far cells (h×w), of the first."""
    x, y = first[:, far], second[:, far]
    x_mean, y_mean = x.mean(1, keepdim=True), y.mean(1, keepdim=True)
    gain = ((x - x_mean) * (y - y_mean)).sum(1, keepdim=True) / (x - x_mean).square().sum(1, keepdim=True).clamp(
        min=1e-12
    )
    return second - (y_mean[..., None] + gain[..., None] * (first - x_mean[..., None]))


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
