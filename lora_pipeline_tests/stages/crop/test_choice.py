"""Which pictures are taken: worked numbers, and sets in which the right choice is plain."""

import random
from dataclasses import replace

import pytest

from lora_pipeline.stages.crop.choice import Candidate, choose, ordinal, pictures, quotas
from lora_pipeline.stages.crop.shot import Shot

SHARES = {"close": 0.5, "medium": 0.3, "full": 0.2}


def one(
    photo: int,
    framing: str = "close",
    yaw: str = "frontal",
    sharpness: float = 600.0,
    colour: int = 0,
    yaw_deg: float = 0.0,
    enlarged: float = 1.0,
) -> Candidate:
    background = tuple(float(number == colour) for number in range(64))
    shot = Shot(sharpness, "soft", background)
    id = f"p{photo:03d}.jpg"
    return Candidate(
        f"{id}@{framing}", id, framing, (framing, yaw, "soft"), f"{framing}, {yaw}", yaw_deg, enlarged, shot
    )


def taken(candidates: list[Candidate], best: int = 0, shares=None, plan=None) -> list[str]:
    left = choose(candidates, best, shares or {}, plan or {})
    return [candidate.id for candidate in candidates if candidate.id not in left]


def by_framing(ids: list[str]) -> dict[str, int]:
    return {framing: sum(id.endswith(f"@{framing}") for id in ids) for framing in ("close", "medium", "full")}


def test_nothing_is_left_out_where_nothing_is_asked() -> None:
    assert choose([one(number) for number in range(9)], 0, {}, {"frontal": 2}) == {}


def test_seats_by_webster() -> None:
    plenty = dict.fromkeys(SHARES, 99)
    assert quotas(plenty, SHARES, 20) == {"close": 10, "medium": 6, "full": 4}
    assert quotas(plenty, SHARES, 3) == {"close": 1, "medium": 1, "full": 1}
    assert quotas(plenty, SHARES, 0) == {"close": 0, "medium": 0, "full": 0}
    # one full body where four are due: the three go to the others, five to three
    assert quotas({"close": 20, "medium": 20, "full": 1}, SHARES, 20) == {"close": 12, "medium": 7, "full": 1}
    assert quotas({"close": 2, "medium": 3}, SHARES, 20) == {"close": 2, "medium": 3, "full": 0}


def test_as_many_as_the_shares_allow_but_one_a_photo_at_least() -> None:
    assert pictures({"close": 20, "medium": 20, "full": 6}, SHARES, 20) == 30  # 15, 9 and 6
    assert pictures({"close": 40, "medium": 40, "full": 1}, SHARES, 40) == 40
    assert pictures({"close": 40, "medium": 40}, SHARES, 40) == 40


def test_shares_hold_and_every_photo_is_there() -> None:
    candidates = [one(photo, framing) for photo in range(20) for framing in ("close", "medium")]
    candidates += [one(photo, "full") for photo in range(4)]
    ids = taken(candidates, shares=SHARES)
    assert by_framing(ids) == {"close": 10, "medium": 6, "full": 4}
    assert len({id.partition("@")[0] for id in ids}) == 20  # so no photo gives two


def test_shares_of_the_best_ten() -> None:
    candidates = [one(photo, framing) for photo in range(20) for framing in SHARES]
    assert by_framing(taken(candidates, 10, SHARES)) == {"close": 5, "medium": 3, "full": 2}


def test_what_the_plan_lacks_goes_before_what_is_sharper() -> None:
    frontal = [one(photo, sharpness=900, colour=photo) for photo in range(10)]
    left = [one(photo, yaw="profile left", yaw_deg=-50, sharpness=500, colour=photo) for photo in range(10, 13)]
    plan = {"frontal": 3, "profile left": 2}
    ids = taken([*frontal, *left], 5, plan=plan)
    assert sum(id in {one.id for one in left} for id in ids) >= 2
    # and sharper ones before less sharp ones where all else is equal
    same = [one(photo, sharpness=100 + photo) for photo in range(8)]
    assert taken(same, 3) == ["p005.jpg@close", "p006.jpg@close", "p007.jpg@close"]


def test_a_photo_fills_a_cell_once() -> None:
    both = [one(0, framing, "profile left", yaw_deg=-50, sharpness=900) for framing in ("close", "medium")]
    other = one(1, "close", "profile left", yaw_deg=-50, sharpness=300, colour=1)
    assert other.id in taken([*both, other], 2, plan={"profile left": 2})
    others = [one(1, framing, sharpness=950, colour=1) for framing in ("close", "medium")]
    ids = taken([*both, *others], 3, plan={"profile left": 2})
    assert ids == ["p000.jpg@close", "p001.jpg@close", "p001.jpg@medium"]


def test_another_background_goes_before_a_little_more_sharpness() -> None:
    alike = [one(photo, sharpness=700) for photo in range(6)]
    other = one(9, sharpness=600, colour=5)
    assert other.id in taken([*alike, other], 2)


def test_what_must_be_enlarged_is_worth_less() -> None:
    assert taken([one(0, enlarged=1.5, sharpness=650), one(1)], 1) == ["p001.jpg@close"]


def test_neither_order_nor_chance_matters() -> None:
    rng = random.Random(5)
    candidates = [
        one(photo, framing, rng.choice(["frontal", "profile left"]), rng.uniform(50, 900), rng.randrange(9))
        for photo in range(30)
        for framing in SHARES
    ]
    plan = {"profile left": 6, "frontal": 9}
    expected = choose(candidates, 25, SHARES, plan)
    alike = [one(photo) for photo in range(5)]
    assert sorted(taken(alike, 2)) == sorted(taken(alike[::-1], 2)) == ["p000.jpg@close", "p001.jpg@close"]
    rng.shuffle(candidates)
    assert choose(candidates, 25, SHARES, plan) == expected
    assert len(expected) == 65


def test_every_one_that_is_left_out_is_told_why() -> None:
    candidates = [one(photo, sharpness=100 + photo) for photo in range(26)]
    candidates += [one(30, "medium", sharpness=900), replace(one(30), photo="p030.jpg")]
    reasons = choose(candidates, 0, {"close": 0.5, "medium": 0.5}, {})
    assert set(reasons) <= {one.id for one in candidates}
    reasons = choose([one(photo, sharpness=100 + photo) for photo in range(26)], 12, {}, {})
    assert reasons["p011.jpg@close"] == "left out: 12 of 26 close, frontal are enough, it is the 15th sharpest"
    many = [one(photo, framing, sharpness=900 - photo) for photo in range(4) for framing in ("close", "medium", "full")]
    reasons = choose(many, 0, {"close": 0.5, "medium": 0.5}, {})
    assert reasons == {f"p00{photo}.jpg@full": "left out: the shares of framings have no full" for photo in range(4)}
    reasons = choose([one(0), one(1, sharpness=590), one(2, sharpness=500, colour=1)], 2, {}, {})
    assert reasons == {
        "p001.jpg@close": "left out: 2 of 3 close, frontal are enough, it is the 2nd sharpest; "
        "of those chosen, p000.jpg@close is the most like it"
    }
    reasons = choose([one(0, sharpness=900), one(0, "medium"), one(1, colour=1)], 2, {}, {"close": 2})
    assert reasons == {
        "p000.jpg@medium": "left out: of the 1 medium, frontal none is wanted, it is the 1st sharpest; its photo is there as close"
    }


def test_a_thousand_photos_are_chosen_from_in_no_time() -> None:
    rng = random.Random(1)
    candidates = [
        one(photo, framing, rng.choice(["frontal", "profile left"]), rng.uniform(50, 900), rng.randrange(64))
        for photo in range(1000)
        for framing in SHARES
    ]
    ids = taken(candidates, shares=SHARES)
    assert by_framing(ids) == {"close": 1000, "medium": 600, "full": 400}


@pytest.mark.parametrize(
    ("number", "words"), [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (22, "22nd"), (112, "112th")]
)
def test_ordinals(number: int, words: str) -> None:
    assert ordinal(number) == words
