"""How sure the choice is: numbers in, a clause out."""

from collections.abc import Mapping, Sequence

import numpy as np

from lora_pipeline.stages.grade.interval import DRAWS, SEED, SHARE


def nearest_in(distances: Mapping[int, Sequence[float | None]]) -> dict[int, float]:
    """The share of draws in which each epoch is the nearest, 0 to 1: the bootstrap of `interval`, over the same pictures of all epochs at once,
    since a prompt and first noise that one epoch draws badly others mostly draw badly too.

    Args:
        distances: of each epoch's pictures, all in one order of prompts and seeds. A picture without one (None) in some epoch is left out of all.
    """
    table = np.array([[np.nan if one is None else one for one in row] for row in distances.values()], dtype=np.float64)
    known = table[:, ~np.isnan(table).any(axis=0)]
    pictures = known.shape[1]
    if pictures < 2:
        return {}
    drawn = np.random.default_rng(SEED).integers(pictures, size=(DRAWS, pictures))
    nearest = known[:, drawn].mean(axis=2).argmin(axis=0)
    return {epoch: float((nearest == number).mean()) for number, epoch in enumerate(distances)}


def doubt(distances: Mapping[int, Sequence[float | None]]) -> str:
    """Which epochs the pictures do not tell apart: those that are the nearest in 1 of 20 draws or more; empty if that is one alone."""
    if len(distances) < 2:
        return ""
    shares = sorted(nearest_in(distances).items(), key=lambda one: -one[1])
    likely = [(epoch, share) for epoch, share in shares if share >= 1 - SHARE]
    if len(likely) < 2:
        return ""
    told = ", ".join(f"epoch {epoch} in {share:.0%}" for epoch, share in likely)
    return f"by these pictures alone it is not sure which epoch is the nearest (of {DRAWS:,} draws among them {told}): more grade.seeds or prompts would tell"
