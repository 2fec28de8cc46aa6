"""Which pictures to take where fewer are wanted than there are: the shares of framings, and the best N under the coverage plan.

Nothing is drawn by lot, and the order of the photos makes no difference.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lora_pipeline.stages.crop.look import Look

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FAIR_SHARPNESS = 300.0
"""Sharpness of a face (`Look.sharpness`) at which a picture is half as good as it can be; the least sharp face of the real photos has 309."""

TURNED_DEG = 30.0
"""Two heads whose yaw differs by so much are turned as differently as can be."""

LEAST_DIFFERENCE = 0.05
"""Of what looks exactly like a chosen one: even then the sharper goes first."""


@dataclass(frozen=True)
class Candidate:
    """A picture that could be cut.

    Args:
        id: the crop's.
        photo: the photo's.
        framing: which.
        shows: what it shows, in the plan's names, its framing too.
        group: what to call those like it ("close, frontal").
        yaw_deg: of the head, or None.
        enlarged: how many times it would be enlarged; under 1 if it is made smaller.
        look: what was measured of the photo.
    """

    id: str
    photo: str
    framing: str
    shows: tuple[str, ...]
    group: str
    yaw_deg: float | None
    enlarged: float
    look: Look


def choose(
    candidates: Sequence[Candidate], best: int, shares: Mapping[str, float], plan: Mapping[str, int]
) -> dict[str, str]:
    """Choose pictures, one after the other, always the one with the greatest product of three:

    - how good it is: s / (s + 300) for the sharpness s of its face, divided by how far it must be enlarged;
    - how much it fills: 1, and 1 more if its photo is not there yet, and for each thing it shows of which the plan still wants
      some, the share that is missing;
    - how different it is from the chosen one that is most like it: the mean of how unlike their backgrounds are, how differently
      the heads are turned, and whether light and framing differ.

    Args:
        candidates: all there are.
        best: how many to take; 0 for as many as the shares allow.
        shares: framing → share, their sum 1. The number by framing is then set before the choice (`quotas`), and scarce framings
            choose first. Empty for no shares.
        plan: name of a cell → how many photos should show it.

    Returns:
        Of each candidate that is not chosen: its id → why.
    """
    ordered = sorted(candidates, key=lambda one: one.id)
    there: dict[str, int] = {}
    for one in ordered:
        there[one.framing] = there.get(one.framing, 0) + 1
    if shares:
        photos = len({one.photo for one in ordered if one.framing in shares})
        numbers = quotas(there, shares, best or pictures(there, shares, photos))
        pools = sorted(
            ((numbers[framing] / there[framing], framing) for framing in numbers if there.get(framing)), reverse=True
        )
        rounds = [([one for one in ordered if one.framing == framing], numbers[framing]) for _, framing in pools]
    elif best:
        rounds = [(ordered, best)]
    else:
        return {}
    chosen: list[Candidate] = []
    for pool, number in rounds:
        chosen += _best_of(pool, number, chosen, plan)
    return _reasons(ordered, chosen, shares)


def pictures(there: Mapping[str, int], shares: Mapping[str, float], photos: int) -> int:
    """How many pictures to take where only shares are asked for: as many as can have them, but at least one a photo.

    Without the latter, a single full body among forty portraits would allow five pictures in all.
    """
    return max(photos, min(int(there.get(framing, 0) / share + 1e-9) for framing, share in shares.items()))


def quotas(there: Mapping[str, int], shares: Mapping[str, float], total: int) -> dict[str, int]:
    """How many pictures of each framing: `total` in all, their shares as near to those asked for as what is there allows.

    Dealt out one by one to the framing that is furthest behind (Webster 1832, as parliaments' seats are); one that has no more
    leaves its seats to the others.
    """
    given = dict.fromkeys(shares, 0)
    for _ in range(total):
        room = [framing for framing in shares if given[framing] < there.get(framing, 0)]
        if not room:
            break
        given[max(room, key=lambda framing: shares[framing] / (given[framing] + 0.5))] += 1
    return given


def _best_of(
    pool: Sequence[Candidate], number: int, chosen: Sequence[Candidate], plan: Mapping[str, int]
) -> list[Candidate]:
    """So many of a pool, after those that are chosen already."""
    import numpy as np

    good = np.array([one.look.sharpness / (one.look.sharpness + FAIR_SHARPNESS) / max(1, one.enlarged) for one in pool])
    cells = [name for name in sorted(plan) if plan[name]]
    fills = np.array([[name in one.shows for name in cells] for one in pool], dtype=float).reshape(
        len(pool), len(cells)
    )
    photos = np.array([one.photo for one in pool])
    new = np.ones(len(pool))
    difference = np.ones(len(pool))
    counted: dict[str, set[str]] = {name: set() for name in cells}

    def count(one: Candidate) -> None:
        """A photo fills a cell once, however many pictures of it are chosen."""
        for column, name in enumerate(cells):
            if name in one.shows:
                counted[name].add(one.photo)
                fills[photos == one.photo, column] = 0
        new[photos == one.photo] = 0
        np.minimum(difference, _differences(pool, one), out=difference)

    for one in chosen:
        count(one)
    took: list[Candidate] = []
    left = np.ones(len(pool), dtype=bool)
    for _ in range(min(number, len(pool))):
        missing = np.array([max(0, plan[name] - len(counted[name])) / plan[name] for name in cells])
        # Rounded, so that the last digit of a sum, which hangs on the processor, decides nothing; of equals the first by name.
        scores = np.round(good * (1 + new + fills @ missing) * np.maximum(difference, LEAST_DIFFERENCE), 9)
        index = int(np.where(left, scores, -1).argmax())
        left[index] = False
        took.append(pool[index])
        count(pool[index])
    return took


def _differences(pool: Sequence[Candidate], chosen: Candidate) -> "NDArray[np.float64]":
    """How different each of the pool is from a chosen one, 0 to 1."""
    import numpy as np

    backgrounds = np.array([one.look.background for one in pool])  # pool × 64
    unlike = 1 - np.minimum(backgrounds, np.array(chosen.look.background)).sum(1)
    turned = np.array([abs((one.yaw_deg or 0.0) - (chosen.yaw_deg or 0.0)) / TURNED_DEG for one in pool])
    light = np.array([one.look.light != chosen.look.light for one in pool])
    framing = np.array([one.framing != chosen.framing for one in pool])
    return (unlike + np.minimum(1, turned) + light + framing) / 4


def _reasons(
    candidates: Sequence[Candidate], chosen: Sequence[Candidate], shares: Mapping[str, float]
) -> dict[str, str]:
    took = {one.id for one in chosen}
    groups: dict[str, list[Candidate]] = {}
    for one in candidates:
        groups.setdefault(one.group, []).append(one)
    reasons: dict[str, str] = {}
    for group, all_of_it in groups.items():
        ranked = sorted(all_of_it, key=lambda one: (-one.look.sharpness, one.id))
        enough = sum(one.id in took for one in ranked)
        for rank, one in enumerate(ranked, start=1):
            if one.id in took:
                continue
            if shares and one.framing not in shares:
                reasons[one.id] = f"left out: the shares of framings have no {one.framing}"
                continue
            told = (
                f"{enough} of {len(ranked)} {group} are enough"
                if enough
                else f"of the {len(ranked)} {group} none is wanted"
            )
            elsewhere = sorted({other.framing for other in chosen if other.photo == one.photo})
            also = f"; its photo is there as {', '.join(elsewhere)}" if elsewhere else ""
            reasons[one.id] = f"left out: {told}, it is the {ordinal(rank)} sharpest{also}"
    return reasons


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, …, 11th, …, 21st."""
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
