"""Which photos are copies of one shot: other sizes, recompressed, bars around them, mirrored, or a crop."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lora_pipeline.stages.curate.marks import LOOK_PX, MARK, MIRROR, PLACE
from lora_pipeline.stages.curate.measure import Measured
from lora_pipeline.stages.curate.near import Hashes, Numbers, near_pairs

Floats = NDArray[np.floating]

# A perceptual hash knows shapes in grey alone, and joins all portraits of one person in one pose. So copies must also look
# alike in colour, at 8 × 8 pixels. Seen: copies cropped by up to 5 % correlate at 0.97 and more; of 151 pairs of drawn
# portraits within 8 bits of each other, one does (the same clothes, backdrop and pose).
LEAST_CORRELATION = 0.97
MARK_DISTANCE = 2  # bits: of the places that a crop shares with its photo, nearly all are within it
ROUGHLY = 0.7  # correlation under which no position near by is asked
CROWD = 64  # photos with one mark: it is a thing that is everywhere, and tells nothing
WITHIN = 0.9  # least share of a crop's area that lies within the photo: so much may be misjudged
LEAST_AREA, LEAST_SIDE = 0.55, 0.64  # of the photo that a crop shows; a smaller one is another framing, not a copy
GRID = 12  # points each way at which a photo and its crop are compared
AT_ONCE = 4096


@dataclass(frozen=True)
class Prints:
    """What N photos are known again by.

    Args:
        phash, mirrored: perceptual hashes of the whole, N each.
        looks: N × 16 × 16 × 3, RGB.
        shapes: N × 2, width and height as shares of the long side.
        marks: all photos' places, records `MARK`.
        owners: whose each of these is, indices of photos.
    """

    phash: Hashes
    mirrored: Hashes
    looks: NDArray[np.uint8]
    shapes: Floats
    marks: NDArray[np.void]
    owners: Numbers

    @staticmethod
    def of(measured: Iterable[Measured]) -> "Prints":
        """The prints of some measured photos, each asked for once."""
        phash, mirrored, sizes, places = list[int](), list[int](), list[tuple[int, int]](), list[int]()
        looks, marks = bytearray(), bytearray()
        for one in measured:
            phash.append(int(one.phash, 16))
            mirrored.append(int(one.mirrored, 16))
            sizes.append((one.trim[2] - one.trim[0], one.trim[3] - one.trim[1]))
            looks += bytes.fromhex(one.look)
            own = bytes.fromhex(one.marks)
            marks += own
            places.append(len(own) // MARK.itemsize)
        sides = np.array(sizes, dtype=np.float32).reshape(-1, 2)
        return Prints(
            np.array(phash, dtype=np.uint64),
            np.array(mirrored, dtype=np.uint64),
            np.frombuffer(looks, dtype=np.uint8).reshape(-1, LOOK_PX, LOOK_PX, 3),
            sides / sides.max(1, initial=1, keepdims=True),
            np.frombuffer(marks, dtype=MARK),
            np.repeat(np.arange(len(places)), places),
        )


def groups(measured: Iterable[Measured], distance: int) -> list[list[int]]:
    """Groups of photos that are copies of each other, directly or by way of others.

    Args:
        measured: the photos, each asked for once.
        distance: bits in which the hashes of two copies may differ (0 to 64).

    Returns:
        Indices into `measured`, groups of at least two, each in ascending order.
    """
    prints = Prints.of(measured)
    return grouped(prints, distance) if len(prints.phash) else []


def grouped(prints: Prints, distance: int) -> list[list[int]]:
    """The same of prints. Two photos are copies if

    - their whole hashes, or one's and the mirrored other's, differ in at most `distance` bits, and they look alike; or
    - they share a place, mirrored or not, and laid one upon the other by it, one is a crop of at least some 60 % of the other, and they look
      alike where they overlap.
    """
    first = _first_equal(prints)
    edges = [np.stack([first, np.arange(len(first))])]
    alone = np.flatnonzero(first == np.arange(len(first)))
    edges += [alone[pairs] for pairs in _whole(prints, alone, distance)]
    label = _components(edges, len(first))
    edges += _cropped(prints, alone, label)
    label = _components(edges, len(first))
    order = np.argsort(label, kind="stable")
    cuts = np.flatnonzero(np.diff(label[order])) + 1
    return sorted(group.tolist() for group in np.split(order, cuts) if len(group) > 1)


def _first_equal(prints: Prints) -> Numbers:
    """For each photo the first that equals it in everything, so that a thousand copies of one file are not half a million pairs."""
    seen: dict[bytes, int] = {}
    looks = prints.looks.reshape(len(prints.looks), -1)
    return np.array(
        [
            seen.setdefault(hashlib.blake2b(look.tobytes() + phash.tobytes(), digest_size=16).digest(), number)
            for number, (look, phash) in enumerate(zip(looks, prints.phash, strict=True))
        ],
        dtype=np.int64,
    )


def _components(edges: Sequence[Numbers], count: int) -> Numbers:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows, columns = np.concatenate(edges, axis=1)
    return connected_components(coo_array((np.ones(len(rows), dtype=bool), (rows, columns)), (count, count)), False)[1]


def _whole(prints: Prints, alone: Numbers, distance: int) -> Iterator[Numbers]:
    """Pairs (2 × P, indices into `alone`) whose whole pictures are alike, mirrored or not."""
    phash, mirrored = prints.phash[alone], prints.mirrored[alone]
    half = prints.looks[alone].reshape(len(alone), 8, 2, 8, 2, 3).mean((2, 4), dtype=np.float32).astype(np.uint8)
    for flip, hashes in ((False, phash), (True, mirrored)):
        for one, other in near_pairs(hashes, phash, distance):
            ahead = one < other
            for start in range(0, len(one), AT_ONCE):
                some = slice(start, start + AT_ONCE)
                a, b = one[some][ahead[some]], other[some][ahead[some]]
                ours = half[a][:, :, ::-1] if flip else half[a]
                alike = _correlation(ours, half[b]) >= LEAST_CORRELATION
                yield np.stack([a[alike], b[alike]])


def _cropped(prints: Prints, alone: Numbers, label: Numbers) -> Iterator[Numbers]:
    """Pairs (2 × P, photos) of which one is a crop of the other, of those that are not joined yet."""
    singled = np.zeros(len(label), dtype=bool)
    singled[alone] = True
    own = np.flatnonzero(singled[prints.owners])
    hashes, owners = prints.marks["hash"][own], prints.owners[own]
    places = np.stack([prints.marks[name][own] for name in ("x", "y", "side")], axis=1).astype(np.float32) / PLACE
    for flip in (False, True):
        for one, other in near_pairs(hashes ^ MIRROR if flip else hashes, hashes, MARK_DISTANCE, CROWD):
            apart = (one < other) & (label[owners[one]] != label[owners[other]])
            one, other = one[apart], other[apart]
            for start in range(0, len(one), AT_ONCE):
                a, b = one[start : start + AT_ONCE], other[start : start + AT_ONCE]
                of_one = _overlaps(prints, owners[a], owners[b], places[a], places[b], flip)
                yield np.stack([owners[a][of_one], owners[b][of_one]])


def _overlaps(prints: Prints, a: Numbers, b: Numbers, at_a: Floats, at_b: Floats, flip: bool) -> NDArray[np.bool_]:
    """Whether a (mirrored if `flip`), laid upon b so that the places (P × 3: x, y, side) meet, is a crop of it, or the other way round."""
    scale = at_b[:, 2] / at_a[:, 2]
    x = prints.shapes[a, 0] - at_a[:, 0] if flip else at_a[:, 0]
    shift = at_b[:, :2] - scale[:, None] * np.stack([x, at_a[:, 1]], axis=1)
    low = np.maximum(shift, 0)
    high = np.minimum(shift + scale[:, None] * prints.shapes[a], prints.shapes[b])
    sides = np.maximum(high - low, 0)
    size_a, size_b = scale[:, None] * prints.shapes[a], prints.shapes[b]
    larger = np.maximum(size_a, size_b)
    within = sides.prod(1) / np.minimum(size_a.prod(1), size_b.prod(1))
    fits = (within >= WITHIN) & (sides.prod(1) >= LEAST_AREA * larger.prod(1))
    fits &= (sides >= LEAST_SIDE * larger).all(1)
    some = np.flatnonzero(fits)
    for start in range(0, len(some), AT_ONCE // 8):
        part = some[start : start + AT_ONCE // 8]
        fits[part] = _alike(prints, a[part], b[part], scale[part], shift[part], low[part], high[part], flip)
    return fits


def _alike(
    prints: Prints,
    a: Numbers,
    b: Numbers,
    scale: Floats,
    shift: Floats,
    low: Floats,
    high: Floats,
    flip: bool,
) -> NDArray[np.bool_]:
    """Whether a and b look alike where they overlap, in the best of some positions near by: a place is known to a few hundredths."""
    share = (np.arange(GRID, dtype=np.float32) + 0.5) / GRID
    inner = low[:, None] + share[:, None] * (high - low)[:, None]  # P × GRID × 2, in b
    looks = prints.looks[a][:, :, ::-1] if flip else prints.looks[a]
    seen_b = _sampled(prints.looks[b], inner / prints.shapes[b][:, None])

    def correlation(some: Numbers, size: float, right: float, down: float) -> Floats:
        moved = middle[some, None] + (inner[some] - middle[some, None]) / size + np.array([right, down], np.float32)
        in_a = (moved - shift[some, None]) / scale[some, None, None] / prints.shapes[a[some]][:, None]
        return _correlation(_sampled(looks[some], in_a), seen_b[some])

    middle = (low + high) / 2
    best = correlation(np.arange(len(a)), 1.0, 0.0, 0.0)
    near = np.flatnonzero(best >= ROUGHLY)
    for size in (0.96, 1.0, 1.04):
        for right in (-0.02, 0.0, 0.02):
            for down in (-0.02, 0.0, 0.02):
                best[near] = np.maximum(best[near], correlation(near, size, right, down))
    return best >= LEAST_CORRELATION


def _sampled(looks: NDArray[np.uint8], at: Floats) -> Floats:
    """Colours between the pixels of P looks, at P × GRID × 2 (x, y; shares of the picture), as P × GRID × GRID × 3."""
    place = np.clip(at * LOOK_PX - 0.5, 0, LOOK_PX - 1)
    whole = np.minimum(place.astype(np.int64), LOOK_PX - 2)
    part = (place - whole).astype(np.float32)
    photo = np.arange(len(looks))[:, None, None]
    x, y = whole[:, None, :, 0], whole[:, :, None, 1]
    dx, dy = part[:, None, :, 0, None], part[:, :, None, 1, None]
    return (
        looks[photo, y, x] * (1 - dx) * (1 - dy)
        + looks[photo, y, x + 1] * dx * (1 - dy)
        + looks[photo, y + 1, x] * (1 - dx) * dy
        + looks[photo, y + 1, x + 1] * dx * dy
    )


def _correlation(one: NDArray[np.generic], other: NDArray[np.generic]) -> Floats:
    """Pearson's, of P pictures each; 0 with a plain one, which is a copy of none but its equal."""
    a, b = (value.reshape(len(value), int(np.prod(value.shape[1:]))).astype(np.float32) for value in (one, other))
    a -= a.mean(1, keepdims=True)
    b -= b.mean(1, keepdims=True)
    return (a * b).sum(1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-6)
