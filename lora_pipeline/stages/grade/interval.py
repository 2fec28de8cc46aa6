"""How sure a number over pictures is: its bootstrap confidence interval (Efron 1979)."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lora_pipeline.records import About, Better, Measure

SHARE = 0.95
DRAWS = 1000
SEED = 0
DIGITS = 4

Middle = Callable[..., Any]
"""`numpy.median` or `numpy.mean`."""


def interval(values: Sequence[float], middle: Middle = np.median) -> tuple[float, float] | None:
    """The percentile interval that holds 95 % of the middles of 1000 sets, drawn with replacement from the values, always the same.

    A value is that of one picture, a prompt from a seed. Drawing whole seeds, all prompts of one together (a cluster bootstrap), would ask
    how much hangs on the seeds alone; but with two seeds there are only three such sets, and their interval is the span between the two, which holds
    the truth half of the time: with few clusters it promises too much (Cameron, Gelbach and Miller 2008). Drawing among all
    pictures counts what differs between prompts as chance, too: that is wide rather than narrow, unless a seed moves the
    pictures of all its prompts the same way. None under two values.
    """
    if len(values) < 2:
        return None
    known = np.asarray(values, dtype=np.float64)
    drawn = np.random.default_rng(SEED).integers(len(known), size=(DRAWS, len(known)))
    low, high = np.quantile(middle(known[drawn], axis=1), [(1 - SHARE) / 2, (1 + SHARE) / 2])
    return round(float(low), DIGITS), round(float(high), DIGITS)


def told(
    name: str,
    about: About,
    better: Better,
    values: Sequence[float | None],
    base: Sequence[float | None],
    ceiling: float | None = None,
    middle: Middle = np.median,
) -> Measure:
    """The middle of an epoch's values (None: a picture in which there was nothing to measure), its interval and the base model's."""
    known = [value for value in values if value is not None]
    low, high = interval(known, middle) or (None, None)
    return Measure(
        name,
        about,
        better,
        middle_of(known, middle),
        low,
        high,
        middle_of(base, middle),
        None if ceiling is None else round(ceiling, DIGITS),
    )


def middle_of(values: Sequence[float | None], middle: Middle = np.median) -> float | None:
    """The median (or mean) of those that are known, rounded; None if none is."""
    known = [value for value in values if value is not None]
    return round(float(middle(known)), DIGITS) if known else None
