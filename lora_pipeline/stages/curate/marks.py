"""What a photo is known again by: hashes of the whole, of it mirrored, and of places in it that a crop leaves."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

LOOK_PX = 16
MARKS = 12  # a crop to 60 % of a photo was seen to keep 2 to 7 of them
MARKS_PX = 320  # long side at which places are looked for
PATCH = 6.0  # side of a place's patch ÷ the place's own size: what SIFT describes, too
SMALLEST, LARGEST = (
    0.2,
    0.7,
)  # of the photo's short side: a smaller patch is found elsewhere, a larger one lost in a crop
PATCH_PX = 32

MARK = np.dtype([("hash", "<u8"), ("x", "<u2"), ("y", "<u2"), ("side", "<u2")])
PLACE = 16384  # units of a place: this many are the photo's long side

# The lowest frequencies (vertical, horizontal) of a cosine transform, without the mean.
_FREQUENCIES = sorted(((v, u) for v in range(16) for u in range(16) if v + u), key=lambda vu: (sum(vu), vu[1]))[:64]
MIRROR = np.uint64(sum(1 << bit for bit, (_, u) in enumerate(_FREQUENCIES) if u % 2))
"""The bits by which a patch's hash and its mirror image's differ: frequencies that are odd from left to right change their sign."""


def look(picture: "Image") -> NDArray[np.uint8]:
    """A picture at 16 × 16 pixels, RGB (16×16×3)."""
    from PIL import Image

    return np.asarray(picture.convert("RGB").resize((LOOK_PX, LOOK_PX), Image.Resampling.BOX))


def marks(picture: "Image") -> NDArray[np.void]:
    """The hashes of up to 12 places in a picture, and where they are.

    Places are the strongest of SIFT's keypoints (Lowe 2004, "Distinctive image features from scale-invariant keypoints"; OpenCV) that are large
    enough to be told from others: they come with their own position and size, so a crop of the photo has the same ones. Each place's patch
    is hashed by the signs of its 64 lowest frequencies (a perceptual hash, as imagehash's but with zero for the median, which makes
    a mirrored patch's hash known without its picture: `MIRROR`).

    Returns:
        N records `MARK`: the hash, then the patch's centre x, y and its side in 1/16384 of the picture's long side.
    """
    import cv2
    from PIL import Image
    from scipy.fft import dctn

    luma = picture.convert("L")
    scale = MARKS_PX / max(luma.size)
    size = (max(1, round(luma.width * scale)), max(1, round(luma.height * scale)))
    luma = luma.resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR)
    width, height = luma.size
    found = cv2.SIFT.create(contrastThreshold=0.02, edgeThreshold=8).detect(np.asarray(luma), None)
    told: list[tuple[int, int, int, int]] = []
    seen: set[tuple[int, int, int]] = set()
    for point in sorted(found, key=lambda point: (-point.response, point.pt, point.size)):
        (x, y), side = point.pt, PATCH * point.size
        box = (x - side / 2, y - side / 2, x + side / 2, y + side / 2)
        if not SMALLEST <= side / min(width, height) <= LARGEST:
            continue
        if box[0] < 0 or box[1] < 0 or box[2] > width or box[3] > height:
            continue
        place = (round(x / 3), round(y / 3), round(3 * float(np.log2(side))))  # one with two directions comes twice
        if place in seen:
            continue
        seen.add(place)
        patch = luma.resize((PATCH_PX, PATCH_PX), Image.Resampling.BILINEAR, box=box)
        waves = np.asarray(dctn(np.asarray(patch, dtype=np.float64)))
        bits = sum(1 << bit for bit, vu in enumerate(_FREQUENCIES) if waves[vu] > 0)
        told.append((bits, _units(x), _units(y), _units(side)))
        if len(told) == MARKS:
            break
    return np.array(told, dtype=MARK)


def _units(length: float) -> int:
    return round(length / MARKS_PX * PLACE)
