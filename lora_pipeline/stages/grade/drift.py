"""Drift: are others, drawn without the trigger, still as the base model draws them?"""

from collections.abc import Sequence
from itertools import combinations

from lora_pipeline.records import Measure
from lora_pipeline.stages.grade.interval import middle_of, told
from lora_pipeline.stages.grade.likeness import Yardstick
from lora_pipeline.stages.grade.seen import Seen

DRIFT = "drift of others"
BLEEDING = "bleeding into others"
LEAST_WAY = 0.05
"""Distance between the base model's others and the subject under which no share of it can be told."""


def drifted(others: Sequence[Seen], base: Sequence[Seen], yardstick: Yardstick) -> list[float | None]:
    """Distance of each picture of others to what the base model draws of that prompt from that seed."""
    there = {(one.prompt, one.seed): one for one in base}
    pairs = [(one, there.get((one.prompt, one.seed))) for one in others]
    return [None if control is None else yardstick.apart(one, control) for one, control in pairs]


def another_seed(base: Sequence[Seen], yardstick: Yardstick) -> float | None:
    """Median distance between the base model's own pictures of one prompt from two seeds; None with one seed."""
    pairs = [(one, other) for one, other in combinations(base, 2) if one.prompt == other.prompt]
    return middle_of([yardstick.apart(one, other) for one, other in pairs])


def bled(
    others: Sequence[Seen], base_others: Sequence[Seen], pictures: Sequence[Seen], yardstick: Yardstick
) -> list[float | None]:
    """How far each picture of others has gone of the way from the base model's others to the subject, as this epoch draws it: 0 has not moved,
    1 is as near to the subject as its own pictures are. Empty if that way is too short to tell.
    """
    start, end = (middle_of(yardstick.distances(some)) for some in (base_others, pictures))
    if start is None or end is None or start - end < LEAST_WAY:
        return []
    return [None if one is None else (start - one) / (start - end) for one in yardstick.distances(others)]


def drift(
    others: Sequence[Seen],
    base_others: Sequence[Seen],
    pictures: Sequence[Seen],
    yardstick: Yardstick,
) -> list[Measure]:
    """Both; none if there are no pictures of others. The ceiling of drift is what another seed changes, of bleeding 1."""
    if not others:
        return []
    seed = another_seed(base_others, yardstick)
    away, still = (drifted(some, base_others, yardstick) for some in (others, base_others))
    near, control = (bled(some, base_others, pictures, yardstick) for some in (others, base_others))
    return [
        told(DRIFT, "drift", "less", away, still, seed),
        told(BLEEDING, "drift", "less", near, control, 1.0),
    ]
