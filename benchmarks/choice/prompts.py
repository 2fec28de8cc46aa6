"""What epochs are asked to draw: by the pipeline, which chooses by it, and afterwards for the truth. No prompt is in both."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import numpy as np

from lora_pipeline.demo.photos import subject_identity
from lora_pipeline.demo.world import Scene, phrases_for, random_scene

FRESH_SEED, VALIDATION_SEED = 990_001, 880_001


def fresh_phrases(count: int) -> list[str]:
    """What stands behind trigger and class word in the prompts of the truth; always the same first ones."""
    return list(islice(_phrases(FRESH_SEED), count))


def validation_phrases(count: int, fresh: int) -> list[str]:
    """So many for the pipeline's own pictures, each once and none of them among so many fresh ones."""
    taken = set(fresh_phrases(fresh))
    told = dict.fromkeys(islice((one for one in _phrases(VALIDATION_SEED) if one not in taken), 2 * count))
    return list(told)[:count]


def scene(rng: np.random.Generator) -> Scene:
    """As the world draws them, but without full bodies, whose faces are too small to be told apart."""
    drawn = random_scene(rng)
    return replace(drawn, framing="medium") if drawn.framing == "full" else drawn


def _phrases(seed: int) -> Iterator[str]:
    """Framing, head angle, glasses, shirt, background and light of one scene after the other; hair belongs to the subject, and is not said."""
    rng = np.random.default_rng(seed)
    while True:
        told = phrases_for(subject_identity(), scene(rng))
        yield ", ".join(phrase for phrase in told if not phrase.endswith(" hair"))
