"""Memorising: is it a copy of a training picture? That is an alarm, not likeness."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lora_pipeline.records import Measure
from lora_pipeline.stages.grade.interval import told
from lora_pipeline.stages.grade.seen import Seen, Vector

if TYPE_CHECKING:
    from PIL.Image import Image

COPIES = "copies"
NEAREST = "nearest training picture"

COPY_BITS = 8
"""Of the 64 of a perceptual hash: at most so many differ between copies."""
COPY_THUMB = 0.04
"""Mean difference of thumbnails, 0 to 1, up to which two pictures of one composition are copies. On drawn pictures of the bundled
subject: 0.095 and more between the base model's and the nearest training picture, 0.058 and more after six epochs."""
COPY_COSINE = 0.95
"""Cosine of embeddings by DINOv2 or CLIP from which they are."""
THUMB_PX = 8


def prints(picture: "Image") -> tuple[str, str]:
    """Perceptual hashes (imagehash.phash, 64 bits as 16 hexadecimal digits) of a picture and of its mirror image."""
    import imagehash
    from PIL import Image

    return str(imagehash.phash(picture)), str(imagehash.phash(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)))


def thumb(picture: "Image") -> Vector:
    """What is left of an RGB picture at 8 × 8 pixels: 192 numbers of 0 to 1, row by row."""
    from PIL import Image

    small = picture.convert("RGB").resize((THUMB_PX, THUMB_PX), Image.Resampling.BOX)
    return tuple(round(float(value) / 255, 4) for value in np.asarray(small).ravel())


def bits_apart(one: str, other: str) -> int:
    """In how many of 64 bits two perceptual hashes differ."""
    return (int(one, 16) ^ int(other, 16)).bit_count()


def copy_bits(picture: tuple[str, str], photo: tuple[str, str]) -> int:
    """In how many of 64 bits the hashes of two pictures differ, the one mirrored or not."""
    return min(bits_apart(picture[0], one) for one in photo)


def thumbs_apart(picture: Vector, photo: Vector) -> float:
    """Mean absolute difference of two thumbnails, 0 to 1, mirrored or not."""
    one, other = (np.asarray(values).reshape(THUMB_PX, THUMB_PX, 3) for values in (picture, photo))
    return float(min(np.abs(one - other).mean(), np.abs(one - other[:, ::-1]).mean()))


def is_copy(picture: Seen, photos: Sequence[Seen], embedder: str = "") -> bool | None:
    """Whether some photo has nearly the picture's perceptual hash, and nearly its embedding (or, without an embedder, its thumbnail).

    Both are asked, since portraits of one composition have near hashes, and pictures of one thing near embeddings. None if there is nothing to compare.
    """
    seen = picture.glance
    if seen is None or not photos:
        return None
    for photo in photos:
        if photo.glance is None or copy_bits(seen.prints, photo.glance.prints) > COPY_BITS:
            continue
        if embedder:
            one, other = picture.vectors.get(embedder), photo.vectors.get(embedder)
            if one is not None and other is not None and float(np.dot(one, other)) >= COPY_COSINE:
                return True
        elif thumbs_apart(seen.thumb, photo.glance.thumb) <= COPY_THUMB:
            return True
    return False


def nearest_among(photos: Sequence[Seen]) -> float | None:
    """Median over the training pictures of bits to the nearest one of another photo; None with one photo."""
    known = [one for one in photos if one.glance]
    names = np.array([one.photo for one in known])
    hashes = np.array(
        [[int(print_, 16) for print_ in one.glance.prints] for one in known if one.glance], dtype=np.uint64
    )
    nearest: list[int] = []
    for name, (plain, _) in zip(names, hashes, strict=True):
        others = hashes[names != name]
        if len(others):
            nearest.append(int(np.bitwise_count(others ^ plain).min()))
    return float(np.median(nearest)) if nearest else None


def memorising(
    pictures: Sequence[Seen], base: Sequence[Seen], photos: Sequence[Seen], embedder: str, ceiling: float | None
) -> list[Measure]:
    """The share of copies, 0 to 1; and bits (of 64) to the nearest training picture.

    Args:
        ceiling: `nearest_among` of the photos.
    """
    own, control = ([_share(is_copy(one, photos, embedder)) for one in some] for some in (pictures, base))
    near, near_base = ([_nearest(one, photos) for one in some] for some in (pictures, base))
    return [
        told(COPIES, "memorising", "less", own, control, middle=np.mean),
        told(NEAREST, "memorising", "more", near, near_base, ceiling),
    ]


def _share(copied: bool | None) -> float | None:
    return None if copied is None else float(copied)


def _nearest(picture: Seen, photos: Sequence[Seen]) -> float | None:
    seen = picture.glance
    apart = [copy_bits(seen.prints, photo.glance.prints) for photo in photos if photo.glance] if seen else []
    return float(min(apart)) if apart else None
