"""Pictures of drawn strangers, a shard (one .npz file) at a time: what the base model learns from.

A shard depends on its number and nothing else, so an interrupted drawing goes on where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lora_pipeline.demo.world import draw, phrases_for, random_identity, random_scene

PICTURE_PX: Final = 128
SHARD_PICTURES: Final = 1000
SHARD_SEED: Final = 77_000
"""Strangers' seeds start here; the bundled subject's lies elsewhere, so nobody trains the base on them."""


@dataclass(frozen=True, slots=True)
class Strangers:
    """Pictures with what is known of them."""

    pictures: NDArray[np.uint8]
    """N x 128 x 128 x 3, RGB, 0..255."""
    boxes: NDArray[np.int32]
    """N x 4, the face's x, y, width, height in px."""
    class_words: tuple[str, ...]
    phrases: tuple[tuple[str, ...], ...]
    """For each picture, the caption's phrases after the first."""


def draw_shard(folder: Path, number: int) -> Path:
    """Draws one shard into `folder` unless it is there already."""
    path = folder / f"strangers-{number:03d}.npz"
    if path.exists():
        return path
    rng = np.random.default_rng(SHARD_SEED + number)
    pictures = np.empty((SHARD_PICTURES, PICTURE_PX, PICTURE_PX, 3), np.uint8)
    boxes = np.empty((SHARD_PICTURES, 4), np.int32)
    words: list[str] = []
    phrases: list[tuple[str, ...]] = []
    for i in range(SHARD_PICTURES):
        drawing = draw(random_identity(rng), random_scene(rng, (PICTURE_PX, PICTURE_PX)))
        pictures[i] = np.asarray(drawing.picture)
        boxes[i] = drawing.faces[0].box
        words.append(drawing.identity.class_word)
        phrases.append(phrases_for(drawing.identity, drawing.scene))
    aside = path.with_suffix(".part.npz")
    np.savez(aside, pictures=pictures, boxes=boxes, text=np.array(json.dumps([words, phrases])))
    aside.rename(path)
    return path


def draw_shards(folder: Path, count: int, workers: int) -> list[Path]:
    """Draws the first `count` shards, `workers` at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    if workers <= 1:
        return [draw_shard(folder, number) for number in range(count)]
    with ProcessPoolExecutor(workers) as pool:
        return list(pool.map(partial(draw_shard, folder), range(count)))


def read_shards(paths: Sequence[Path]) -> Strangers:
    """The shards as one."""
    pictures: list[NDArray[np.uint8]] = []
    boxes: list[NDArray[np.int32]] = []
    words: list[str] = []
    phrases: list[tuple[str, ...]] = []
    for path in paths:
        with np.load(path) as shard:
            pictures.append(shard["pictures"])
            boxes.append(shard["boxes"])
            its_words, its_phrases = json.loads(str(shard["text"]))
        words.extend(its_words)
        phrases.extend(tuple(p) for p in its_phrases)
    return Strangers(np.concatenate(pictures), np.concatenate(boxes), tuple(words), tuple(phrases))
