"""Pairs of 64-bit hashes that are near each other, without comparing all with all.

Multi-index hashing (Norouzi, Punjani and Fleet 2012, "Fast search in Hamming space with multi-index hashing"): cut into m bands, two hashes
that differ in at most d bits differ in at most d // m of some band's. So each band is a table, looked up at every pattern of so many bits. The result
is exact: that of comparing all pairs.
"""

from collections.abc import Iterator
from itertools import combinations, pairwise
from math import comb

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Numbers = NDArray[np.integer]

BITS = 64
AT_ONCE = 1 << 19  # pairs compared at once: bounds the memory to some 25 MiB
SCAN = 0.1  # what a comparison in a scan of all costs, in lookups


def near_pairs(ours: Hashes, theirs: Hashes, distance: int, crowd: int = 0) -> Iterator[tuple[Numbers, Numbers]]:
    """All pairs of one of ours and one of theirs that differ in at most so many bits, each pair once.

    Args:
        ours: N hashes.
        theirs: M hashes; may be `ours`, and then every pair comes both ways round, and each with itself.
        distance: bits, 0 to 64.
        crowd: if not 0, a band's table skips an entry that more than so many of theirs share: what is that common tells nothing.

    Yields:
        Indices into `ours` and indices into `theirs`, of equal length, some at a time.
    """
    if not len(ours) or not len(theirs):
        return
    bands, lookups = _bands(distance, len(theirs))
    cheap = SCAN * len(theirs) <= lookups
    if len(theirs) <= crowd or (cheap and not crowd):
        yield from _scan(ours, theirs, distance)
        return
    edges = np.linspace(0, BITS, bands + 1).astype(int)
    cuts = [(int(low), int(high - low)) for low, high in pairwise(edges)]
    radius = distance // len(cuts)
    for number, (shift, width) in enumerate(cuts):
        for first, second in _lookups(ours, theirs, shift, width, radius, crowd):
            differ = ours[first] ^ theirs[second]
            near = np.bitwise_count(differ) <= distance
            for earlier in range(number):  # which has found those that are near in its own band
                near &= np.bitwise_count(_band(differ, *cuts[earlier])) > radius
            if near.any():
                yield first[near], second[near]


def _bands(distance: int, size: int) -> tuple[int, float]:
    """The number of bands that is cheapest, and how many lookups it takes for each hash."""
    costs: dict[int, float] = {}
    for bands in range(3, 17):
        width, radius = -(-BITS // bands), distance // bands
        patterns = sum(comb(width, bits) for bits in range(radius + 1))
        costs[bands] = bands * patterns * (1 + size / 2**width)
    bands = min(costs, key=lambda bands: costs[bands])
    return bands, costs[bands]


def _scan(ours: Hashes, theirs: Hashes, distance: int) -> Iterator[tuple[Numbers, Numbers]]:
    step = max(1, AT_ONCE // len(theirs))
    for start in range(0, len(ours), step):
        first, second = np.nonzero(np.bitwise_count(ours[start : start + step, None] ^ theirs) <= distance)
        yield first + start, second


def _lookups(
    ours: Hashes, theirs: Hashes, shift: int, width: int, radius: int, crowd: int
) -> Iterator[tuple[Numbers, Numbers]]:
    """Pairs that are near in one band."""
    keys = _band(theirs, shift, width).astype(np.int32)
    # In the keys' order, so that both tables are read nearly from front to back.
    table = np.argsort(keys, kind="stable").astype(np.int32)
    sizes = np.bincount(keys, minlength=1 << width).astype(np.int32)
    starts = np.cumsum(sizes, dtype=np.int32) - sizes
    if crowd:
        sizes[sizes > crowd] = 0
    asked = _band(ours, shift, width).astype(np.int32)
    order = np.argsort(asked, kind="stable").astype(np.int32)
    asked = asked[order]
    for pattern in _patterns(width, radius):
        entries = asked ^ np.int32(pattern)
        some = np.flatnonzero(sizes[entries])
        begin, count = starts[entries[some]], sizes[entries[some]]
        total = np.cumsum(count, dtype=np.int64)
        done = 0
        while done < len(some):
            before = total[done - 1] if done else 0
            end = max(done + 1, int(np.searchsorted(total, before + AT_ONCE, side="right")))
            lengths = count[done:end]
            within = np.arange(lengths.sum()) - np.repeat(total[done:end] - lengths - before, lengths)
            yield (
                np.repeat(order[some[done:end]], lengths),
                table[np.repeat(begin[done:end], lengths) + within],
            )
            done = end


def _patterns(width: int, radius: int) -> list[int]:
    """All numbers of so many bits of which at most so many are 1."""
    return [
        sum(1 << bit for bit in chosen) for bits in range(radius + 1) for chosen in combinations(range(width), bits)
    ]


def _band(hashes: Hashes, shift: int, width: int) -> Hashes:
    return (hashes >> np.uint64(shift)) & np.uint64((1 << width) - 1)
