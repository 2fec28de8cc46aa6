"""Freedom: does it still draw different pictures, whole bodies, and one person where one is asked for?"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from lora_pipeline.records import Measure
from lora_pipeline.stages.grade.interval import told
from lora_pipeline.stages.grade.memorising import bits_apart
from lora_pipeline.stages.grade.seen import Seen

SPREAD = "spread over seeds"
WRONG_FACES = "wrong number of faces"
BODY = "face height in full bodies"
FULL_BODY = ("full body", "full-body", "full length", "full-length")


def spread(pictures: Sequence[Seen], embedder: str = "") -> list[float]:
    """Mean distance between the pictures of one prompt from different seeds, one value a prompt that has two: 1 - cosine of
    embeddings, or without an embedder the share of different bits of their perceptual hashes, 0 to 1.
    """
    told: list[float] = []
    for prompt in dict.fromkeys(one.prompt for one in pictures if one.glance):
        of_it = [one for one in pictures if one.prompt == prompt]
        apart = [_apart(one, other, embedder) for one, other in combinations(of_it, 2)]
        known = [value for value in apart if value is not None]
        if known:
            told.append(float(np.mean(known)))
    return told


def _apart(one: Seen, other: Seen, embedder: str) -> float | None:
    if embedder:
        a, b = one.vectors.get(embedder), other.vectors.get(embedder)
        return None if a is None or b is None else 1 - float(np.dot(a, b))
    if one.glance is None or other.glance is None:
        return None
    return bits_apart(one.glance.prints[0], other.glance.prints[0]) / 64


def wrong_faces(pictures: Sequence[Seen], base: Sequence[Seen]) -> list[float]:
    """1 for each picture with more than one face, or with none where the base model's of that prompt and seed has one; else 0."""
    there = {(one.prompt, one.seed) for one in base if one.faces}
    return [float(one.faces > 1 or (one.faces == 0 and (one.prompt, one.seed) in there)) for one in pictures]


def face_heights(pictures: Sequence[Seen]) -> list[float | None]:
    """Of pictures whose prompt asks for a full body, the face's height as a share of the picture's: near the base model's, or it is no full body."""
    return [one.face_height for one in pictures if any(words in one.prompt.lower() for words in FULL_BODY)]


def freedom(pictures: Sequence[Seen], base: Sequence[Seen], faces: bool, embedder: str) -> list[Measure]:
    """All three; the two about faces only for persons. Prompts that say everything and a subject that never changes leave less room
    than the base model has, so less spread than its is no fault by itself.
    """
    measures = [told(SPREAD, "freedom", "more", spread(pictures, embedder), spread(base, embedder), middle=np.mean)]
    if faces:
        drawn = [one for one in pictures if one.glance]
        measures.append(
            told(WRONG_FACES, "freedom", "less", wrong_faces(drawn, base), wrong_faces(base, base), middle=np.mean)
        )
        heights = face_heights(pictures)
        if heights:
            measures.append(told(BODY, "freedom", "same", heights, face_heights(base)))
    return measures
