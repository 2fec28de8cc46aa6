"""True resolution: at how many pixels a photo would still hold all that it shows.

A sharp picture is made of edges, and the power spectrum of edges falls with the cube of the frequency (in two dimensions, averaged over a ring);
a picture that was blown up ends at the frequencies that it had before.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

Luma = NDArray[np.float32]

TILE_PX = 64
GRID = 24  # tiles along each side of the photo, at most
BUSIEST = 8  # one of so many tiles is asked: a photo is as sharp as its sharpest part, behind which all may be soft
LEAST_TILE_PX = 16
DROP = 10**0.6  # 6 dB: where the spectrum is this far below what edges have, it ends
LARGEST_BLOCK = 5  # of pixels that were only repeated; mosaics of larger ones are drawn, not blown up
ALIKE = 0.45  # correlation from which steps between columns are those of repeated pixels
SEGMENT = 96  # columns looked at together
ROWS = 512  # of which at most so many are looked at


def true_share(luma: "Image") -> float:
    """The share of a picture's own pixel size at which it has detail, 0 to 1: 0.5 is a picture blown up to double its size.

    Where the spectrum of its busiest tiles, times the frequency's cube, falls 6 dB below its top at lower frequencies (seen: the share is
    0.85 to 0.95 of 1 / factor for LANCZOS and BICUBIC, also saved as JPEG of quality 70). Pixels that were merely repeated have all
    frequencies, so these are looked for first: `block_factor`.

    A blow-up by less than some 1.2 is not told from a soft photo. A photo out of focus everywhere is as poor as a blow-up, and counts as one.

    Args:
        luma: mode L.
    """
    factor = block_factor(np.asarray(luma))
    if factor > 1:
        from PIL import Image

        size = (max(1, round(luma.width / factor)), max(1, round(luma.height / factor)))
        luma = luma.resize(size, Image.Resampling.NEAREST)
    return end_of_spectrum(tiles(np.asarray(luma))) / factor


def tiles(luma: NDArray[np.uint8]) -> Luma:
    """Square pieces of a picture, evenly spread: N × side × side, the side at most 64 px, N at most 24²."""
    height, width = luma.shape
    side = min(TILE_PX, height, width)
    tops, lefts = (
        np.unique(np.linspace(0, length - side, min(GRID, 2 * length // side)).astype(int))
        for length in (height, width)
    )
    pieces = np.stack([luma[top : top + side, left : left + side] for top in tops for left in lefts])
    return pieces.astype(np.float32)  # only now: a photo of 12 megapixels has 48 MB of floats


def end_of_spectrum(pieces: Luma) -> float:
    """The frequency at which the busiest pieces have no more detail, as a share of the highest (0 to 1); 1 for plain or tiny ones."""
    side = pieces.shape[1]
    if side < LEAST_TILE_PX:
        return 1.0
    steps = np.abs(np.diff(pieces, axis=1)).mean((1, 2)) + np.abs(np.diff(pieces, axis=2)).mean((1, 2))
    busy = pieces[np.argsort(steps, kind="stable")[-max(4, len(pieces) // BUSIEST) :]]
    window = np.hanning(side + 2)[1:-1]
    power = np.abs(np.fft.rfft2((busy - busy.mean((1, 2), keepdims=True)) * np.outer(window, window))) ** 2
    # Rings are squares: a blow-up's spectrum is the square that the smaller picture's was.
    vertical, horizontal = np.abs(np.fft.fftfreq(side)) * side, np.fft.rfftfreq(side) * side
    ring = np.maximum(vertical[:, None], horizontal[None]).round().astype(int)
    level = np.bincount(ring.ravel(), power.mean(0).ravel()) / np.bincount(ring.ravel())
    level = level[1:] * np.arange(1, len(level)) ** 3.0
    if level.max() <= 1e-3:
        return 1.0
    smooth = np.convolve(np.pad(level, 1, mode="edge"), np.ones(3) / 3, mode="valid")
    low = np.flatnonzero(smooth < np.maximum.accumulate(smooth) / DROP)
    return float(low[0] + 1) / len(level) if len(low) else 1.0


def block_factor(luma: NDArray[np.uint8]) -> float:
    """By how much a picture was enlarged by repeating its pixels, 1.2 to 5; 1 if it was not, or not the same both ways.

    Between repeated columns there is no step, so steps come and go with a period, which survives a JPEG (seen: a correlation of 0.4 to 1
    with the true factor's pattern down to quality 60, and of up to 0.4 with any pattern on photos saved with quality 20).
    """
    across, down = _factor(luma), _factor(luma.T)
    return (across + down) / 2 if across > 1 and 0.9 < across / down < 1.1 else 1.0


def _factor(luma: NDArray[np.uint8]) -> float:
    some = luma[:: max(1, len(luma) // ROWS)].astype(np.float32)
    energy = (np.diff(some, axis=1) ** 2).mean(0)
    if len(energy) < SEGMENT or not energy.any():
        return 1.0
    step = np.log(energy + 0.02 * energy.mean())
    smooth = np.ones(17) / 17
    step = np.clip(step - np.convolve(np.pad(step, 8, mode="edge"), smooth, mode="valid"), -1.5, 1.5)
    # Every eighth step may be that between a JPEG's blocks, then larger than the one half way.
    phases = [float(step[phase::8].mean()) for phase in range(8)]
    largest = int(np.argmax(phases))
    if phases[largest] > phases[(largest + 4) % 8] + 0.5:
        step[largest::8] = 0
    parts = step[: len(step) // SEGMENT * SEGMENT].reshape(-1, SEGMENT)
    parts = parts - parts.mean(1, keepdims=True)
    # In parts, since rounding moves the pattern now and then.
    power = (np.abs(np.fft.rfft(parts * np.hanning(SEGMENT), 8 * SEGMENT)) ** 2).sum(0)
    power[: round(8 * SEGMENT / (LARGEST_BLOCK + 0.25))] = 0
    period = 8 * SEGMENT / int(np.argmax(power))
    best, alike = 1.0, ALIKE
    # What has steps that come with this period. Larger blocks are asked about, too, since they have any fraction of theirs.
    for factor in (period, period / (period - 1), *(many * period for many in range(2, 9))):
        patterns = _patterns(factor)
        told = parts @ patterns.T / np.maximum(np.linalg.norm(parts, axis=1)[:, None], 1e-6)
        if float(np.mean(told.max(1))) > alike:
            best, alike = factor, float(np.mean(told.max(1)))
    return best if best <= LARGEST_BLOCK + 0.25 else 1.0


def _patterns(factor: float) -> NDArray[np.float64]:
    """Where a step is (1) and where none is (0) if pixels were repeated, at 16 phases: 16 × SEGMENT, each of mean 0 and norm 1."""
    place = np.arange(SEGMENT + 1) / factor + np.arange(16)[:, None] / 16 + 1e-6
    steps = np.diff(np.floor(place), axis=1)
    steps -= steps.mean(1, keepdims=True)
    return steps / np.maximum(np.linalg.norm(steps, axis=1, keepdims=True), 1e-6)
