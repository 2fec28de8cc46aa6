"""How long does it take to find all copies among many photos, given what each was measured to be? (Wanted: 100,000 in under 60 s on 2 cores, 1,000,000 in under 15 minutes and 8 GiB.)

The photos are numbers: smooth looks of random colours, random hashes, 12 places each, of which every tenth is one of 1,000 that are everywhere.
One in ten is a copy of another photo: recompressed, mirrored, or a crop.
"""

import json
import os
import resource
import subprocess
import sys
import time

import numpy as np

from lora_pipeline.stages.curate.copies import Prints, grouped
from lora_pipeline.stages.curate.marks import LOOK_PX, MARK, MARKS, MIRROR, PLACE

SIZES = (100_000, 1_000_000)
COPIES = ("recompressed", "mirrored", "cropped")
CROP = (0.1, 0.05, 0.8)  # left, top and side of the planted crops, as shares of the photo: 64 % of it
DISTANCE = 8


def ask() -> dict[str, object]:
    """Seconds, peak memory and what was found, by the number of photos; each in a process of its own, with one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.copies.ask"]
    return {
        "photos": {
            str(size): json.loads(
                subprocess.run([*command, str(size)], check=True, capture_output=True, env=environment).stdout
            )
            for size in SIZES
        }
    }


def planted(count: int) -> tuple[Prints, dict[str, np.ndarray]]:
    """The prints of so many photos, and the pairs (2 × P) that are copies, by kind."""
    rng = np.random.default_rng(0)
    rise = np.maximum(0, 1 - np.abs(np.linspace(0, 5, LOOK_PX)[:, None] - np.arange(6)))  # 16 pixels from 6, linearly
    looks = np.empty((count, LOOK_PX, LOOK_PX, 3), dtype=np.uint8)
    for start in range(0, count, 10_000):
        coarse = rng.integers(0, 256, (min(10_000, count - start), 6, 6, 3)).astype(np.float32)
        looks[start : start + 10_000] = np.einsum("yi,nijc,xj->nyxc", rise, coarse, rise, optimize=True)
    phash, mirrored = rng.integers(0, 2**64, (2, count), dtype=np.uint64)
    marks = np.zeros((count, MARKS), dtype=MARK)
    marks["hash"] = rng.integers(0, 2**64, marks.shape, dtype=np.uint64)
    common = rng.integers(0, 2**64, 1000, dtype=np.uint64)
    some = rng.random(marks.shape) < 0.1
    marks["hash"][some] = rng.choice(common, int(some.sum()))
    marks["side"] = rng.integers(PLACE // 8, PLACE // 3, marks.shape)
    for name in ("x", "y"):
        marks[name] = rng.integers(PLACE // 5, PLACE - PLACE // 5, marks.shape)

    told: dict[str, np.ndarray] = {}
    one_kind = count // 30
    for number, kind in enumerate(COPIES):
        copy = np.arange(count - (number + 1) * one_kind, count - number * one_kind)
        of = rng.choice(count // 2, one_kind, replace=False)
        told[kind] = np.stack([of, copy])
        if kind == "cropped":
            left, top, side = CROP
            marks[copy] = marks[of]
            for name, low in (("x", left), ("y", top)):
                marks[name][copy] = np.clip((marks[name][of] / PLACE - low) / side * PLACE, 0, PLACE)
            marks["side"][copy] = marks["side"][of] / side
            marks["hash"][copy, MARKS // 4 :] = rng.integers(0, 2**64, (one_kind, MARKS - MARKS // 4), dtype=np.uint64)
            across, down = (_resampling(low, side) for low in (left, top))
            looks[copy] = np.einsum("yi,nijc,xj->nyxc", down, looks[of].astype(np.float32), across, optimize=True)
        else:
            flips = np.uint64(1) << rng.integers(0, 64, (4, one_kind), dtype=np.uint64)
            hashes = phash[of] ^ np.bitwise_xor.reduce(flips)
            marks["hash"][copy] = rng.integers(0, 2**64, (one_kind, MARKS), dtype=np.uint64)
            if kind == "mirrored":
                mirrored[copy], phash[copy] = hashes, mirrored[of]
                looks[copy] = looks[of][:, :, ::-1]
            else:
                phash[copy], looks[copy] = hashes, looks[of] ^ 1
    # Half of the crops are mirrored, too.
    of, copy = told["cropped"][:, ::2]
    marks["hash"][copy] ^= MIRROR
    marks["x"][copy] = PLACE - marks["x"][copy]
    looks[copy] = looks[copy][:, :, ::-1]
    shapes = np.ones((count, 2), dtype=np.float32)
    return Prints(phash, mirrored, looks, shapes, marks.ravel(), np.repeat(np.arange(count), MARKS)), told


def _resampling(low: float, side: float) -> np.ndarray:
    """16 pixels of a part of 16 pixels, linearly."""
    at = np.clip((low + (np.arange(LOOK_PX) + 0.5) / LOOK_PX * side) * LOOK_PX - 0.5, 0, LOOK_PX - 1)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(LOOK_PX)))


def main() -> None:
    """Measure one size and print what was found."""
    prints, told = planted(int(sys.argv[1]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = time.monotonic(), time.process_time()
    groups = grouped(prints, DISTANCE)
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    group = np.full(len(prints.phash), -1)
    for number, members in enumerate(groups):
        group[members] = number
    # No kind's copies are another's originals, but a photo may have several copies: those groups are one.
    right = {
        kind: float((group[of] >= 0)[group[of] == group[copy]].sum() / len(of)) for kind, (of, copy) in told.items()
    }
    copies = np.concatenate([pairs[1] for pairs in told.values()])
    innocent = np.ones(len(group), dtype=bool)
    innocent[np.concatenate([copies, *(pairs[0] for pairs in told.values())])] = False
    answer = {
        "cpu s": round(cpu, 1),
        "wall s, on a machine with other work": round(wall, 1),
        "peak MiB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "peak MiB before, the prints alone": round(before / 1024),
        "planted copies found": {kind: round(share, 4) for kind, share in right.items()},
        "photos wrongly in a group": int((group[innocent] >= 0).sum()),
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
