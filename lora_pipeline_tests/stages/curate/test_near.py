"""Near pairs of hashes: exactly those that comparing all with all finds."""

import time

import numpy as np
import pytest

from lora_pipeline.stages.curate import near
from lora_pipeline.stages.curate.near import Hashes, near_pairs


def pairs(ours: Hashes, theirs: Hashes, distance: int, crowd: int = 0) -> list[tuple[int, int]]:
    found = near_pairs(ours, theirs, distance, crowd)
    return sorted((int(a), int(b)) for one, other in found for a, b in zip(one, other, strict=True))


def huddled(count: int, seed: int) -> Hashes:
    """Hashes around a few middles, so that every distance occurs often."""
    rng = np.random.default_rng(seed)
    middles = rng.integers(0, 2**64, 6, dtype=np.uint64)
    flips = np.uint64(1) << rng.integers(0, 64, (9, count), dtype=np.uint64)
    flips[rng.integers(0, 10, count) <= np.arange(9)[:, None]] = 0
    return rng.choice(middles, count) ^ np.bitwise_xor.reduce(flips)


@pytest.mark.parametrize("distance", [0, 2, 5, 8, 13])
def test_tables_find_what_a_scan_of_all_finds(distance: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = huddled(250, 1), huddled(200, 1)[::-1].copy()
    told = [(a, b) for a in range(250) for b in range(200) if (int(ours[a]) ^ int(theirs[b])).bit_count() <= distance]
    assert len(told) > 50
    assert pairs(ours, theirs, distance) == told  # so few are scanned
    monkeypatch.setattr(near, "SCAN", 1e9)
    monkeypatch.setattr(near, "AT_ONCE", 100)  # so that a table is read in many steps
    assert pairs(ours, theirs, distance) == told


def test_what_is_common_is_skipped_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 400, dtype=np.uint64)
    hashes[100:150] = hashes[100]
    hashes[7] = hashes[8] ^ np.uint64(1 << 40)
    assert len(pairs(hashes, hashes, 2)) == 400 + 50 * 49 + 2
    assert pairs(hashes, hashes, 2, crowd=20) == sorted(
        [(n, n) for n in range(400) if not 100 <= n < 150] + [(7, 8), (8, 7)]
    )


def test_none() -> None:
    some = np.zeros(3, dtype=np.uint64)
    assert pairs(some[:0], some, 8) == pairs(some, some[:0], 8) == []


def test_fifty_thousand_take_seconds() -> None:
    hashes = np.random.default_rng(0).integers(0, 2**64, 50_000, dtype=np.uint64)
    hashes[-1] = hashes[0] ^ np.uint64(0b111_0001_1111)
    begun = time.process_time()
    assert pairs(hashes, hashes, 8) == sorted([*((n, n) for n in range(50_000)), (0, 49_999), (49_999, 0)])
    assert time.process_time() - begun < 20  # all with all take 2.5 billion comparisons
