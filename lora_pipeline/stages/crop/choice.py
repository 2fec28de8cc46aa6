"""Which pictures to take where fewer are wanted than there are: the shares of framings, and the best N under the coverage plan.

Nothing is drawn by lot, and the order of the photos makes no difference.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lora_pipeline.stages.crop.shot import Shot, unlike

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FAIR_SHARPNESS = 300.0
"""Sharpness of a face (`Shot.sharpness`) at which a picture is half as good as it can be; the least sharp face of the real photos has 309."""

TURNED_DEG = 30.0
"""Two heads whose yaw differs by so much are turned as differently as can be."""

LEFT_OUT = "left out: "
"""How the reason of a picture begins that could be cut, but was not chosen."""

LEAST_DIFFERENCE = 0.05
"""Of what is exactly like a chosen one: even then the sharper goes first."""


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
        shot: what was measured of the photo.
    """

    id: str
    photo: str
    framing: str
    shows: tuple[str, ...]
    group: str
    yaw_deg: float | None
    enlarged: float
    shot: Shot


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
    there = Counter(one.framing for one in ordered)
    if shares:
        photos = len({one.photo for one in ordered if one.framing in shares})
        numbers = quotas(there, shares, best or pictures(there, shares, photos))
        scarcest = sorted(numbers, key=lambda framing: (-numbers[framing] / max(1, there[framing]), framing))
        rounds = [
            ([index for index, one in enumerate(ordered) if one.framing == framing], numbers[framing])
            for framing in scarcest
        ]
    elif best:
        rounds = [(list(range(len(ordered))), best)]
    else:
        return {}
    chosen, nearest = _best_of(ordered, rounds, plan)
    return _reasons(ordered, chosen, nearest, shares)


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
        room = [framing for framing in sorted(shares) if given[framing] < there.get(framing, 0)]
        if not room:
            break
        given[max(room, key=lambda framing: shares[framing] / (given[framing] + 0.5))] += 1
    return given


def _best_of(
    candidates: Sequence[Candidate], rounds: Sequence[tuple[Sequence[int], int]], plan: Mapping[str, int]
) -> tuple[list[Candidate], list[Candidate]]:
    """In each round so many of the candidates at some places; what was chosen in a round counts in the next.

    Returns:
        Those chosen; and for each candidate the one of them that is most like it.
    """
    import numpy as np

    sharpness = np.array([one.shot.sharpness for one in candidates])
    good = sharpness / (sharpness + FAIR_SHARPNESS) / np.maximum(1, [one.enlarged for one in candidates])
    photos = np.unique([one.photo for one in candidates], return_inverse=True)[1]  # a number a photo
    cells = [name for name in sorted(plan) if plan[name]]
    fills = np.array([[name in one.shows for name in cells] for one in candidates], dtype=float)
    asked = np.array([plan[name] for name in cells], dtype=float)
    counted = np.zeros(len(cells))
    new, difference = np.ones(len(candidates)), np.ones(len(candidates))
    nearest = np.zeros(len(candidates), dtype=int)
    differences = _differences(candidates)
    chosen: list[int] = []
    for places, number in rounds:
        left = np.zeros(len(candidates), dtype=bool)
        left[list(places)] = True
        for _ in range(min(number, len(places))):
            missing = np.maximum(0, asked - counted) / asked
            # Rounded, so that the last digit of a sum, which hangs on the processor, decides nothing; of equals the first by name.
            scores = np.round(good * (1 + new + fills @ missing) * np.maximum(difference, LEAST_DIFFERENCE), 9)
            index = int(np.where(left, scores, -1).argmax())
            left[index] = False
            chosen.append(index)
            same = photos == photos[index]
            counted += fills[index]
            new[same] = 0
            # A photo fills a cell once, however many pictures of it are chosen.
            fills[np.ix_(same, fills[index] > 0)] = 0
            now = differences(index)
            nearest[now < difference] = index
            np.minimum(difference, now, out=difference)
    return [candidates[index] for index in chosen], [candidates[index] for index in nearest]


def _differences(candidates: Sequence[Candidate]) -> "Callable[[int], NDArray[np.float64]]":
    """A function that says how different each candidate is from the one at a place, 0 to 1."""
    import numpy as np

    backgrounds = np.array([one.shot.background for one in candidates])  # candidates × 64
    yaw = np.array([one.yaw_deg or 0.0 for one in candidates])
    light = np.unique([one.shot.light for one in candidates], return_inverse=True)[1]
    framing = np.unique([one.framing for one in candidates], return_inverse=True)[1]

    def differences(index: int) -> "NDArray[np.float64]":
        turned = np.minimum(1, abs(yaw - yaw[index]) / TURNED_DEG)
        return (
            unlike(backgrounds, backgrounds[index]) + turned + (light != light[index]) + (framing != framing[index])
        ) / 4

    return differences


def _reasons(
    candidates: Sequence[Candidate],
    chosen: Sequence[Candidate],
    nearest: Sequence[Candidate],
    shares: Mapping[str, float],
) -> dict[str, str]:
    took = {one.id for one in chosen}
    like = {one.id: other.id for one, other in zip(candidates, nearest, strict=True)}
    framings: dict[str, list[str]] = {}  # chosen, by photo
    for one in chosen:
        framings.setdefault(one.photo, []).append(one.framing)
    groups: dict[str, list[Candidate]] = {}
    for one in candidates:
        groups.setdefault(one.group, []).append(one)
    reasons: dict[str, str] = {}
    for group, all_of_it in groups.items():
        ranked = sorted(all_of_it, key=lambda one: (-one.shot.sharpness, one.id))
        ranks = [rank for rank, one in enumerate(ranked, start=1) if one.id in took]
        enough = len(ranks)
        for rank, one in enumerate(ranked, start=1):
            if one.id in took:
                continue
            if shares and one.framing not in shares:
                reasons[one.id] = f"{LEFT_OUT}the shares of framings have no {one.framing}"
                continue
            told = (
                f"{enough} of {len(ranked)} {group} are enough"
                if enough
                else f"of the {len(ranked)} {group} none is wanted"
            )
            also = ""
            if one.photo in framings:
                also = f"; its photo is there as {', '.join(sorted(framings[one.photo]))}"
            elif ranks and rank < ranks[-1]:  # though it is sharper than one that was chosen
                also = f"; of those chosen, {like[one.id]} is the most like it"
            reasons[one.id] = f"{LEFT_OUT}{told}, it is the {ordinal(rank)} sharpest{also}"
    return reasons


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, …, 11th, …, 21st."""
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
