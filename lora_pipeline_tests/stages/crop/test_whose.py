"""Whose face it is: by the most photos, or by a reference; at most one a photo; the same whatever the order."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from lora_pipeline.manifest import planning, read
from lora_pipeline.people import People
from lora_pipeline.records import KNOWN_ONLY, Face
from lora_pipeline.stages.crop.whose import decide, decided_faces, subject_descriptors, write_decided

NEAR = 0.6


def face(photo: str, *place: float, side: int = 100) -> Face:
    """A face whose descriptor is a place in the plane."""
    return Face(photo, (0, 0, side, side), 1.0, ((0.0, 0.0),) * 5, (*place, *[0.0] * (128 - len(place))), 0.0)


def whose(faces: dict[str, tuple[Face, ...]], reference: tuple[float, ...] | None = None) -> dict[str, list[str]]:
    return {photo: [one.whose for one in found] for photo, found in decide(faces, NEAR, reference).items()}


def test_the_subject_is_who_is_in_the_most_photos() -> None:
    faces = {
        "1": (face("1", 0.0), face("1", 5.0)),
        "2": (face("2", 5.1), face("2", 0.2)),
        "3": (face("3", 0.1),),
        "4": (
            face("4", 9.0),
            face("4", 9.1),
            face("4", 9.2),
            face("4", 9.3),
        ),  # one photo of many look-alikes is one photo
        "5": (),
    }
    assert whose(faces) == {
        "1": ["subject", "stranger"],
        "2": ["stranger", "subject"],
        "3": ["subject"],
        "4": ["stranger"] * 4,
        "5": [],
    }


def test_a_reference_decides_against_the_majority() -> None:
    faces = {"1": (face("1", 0.0), face("1", 5.0)), "2": (face("2", 0.1),), "3": (face("3", 0.1),)}
    known = (5.2, *[0.0] * 127)
    assert whose(faces, known) == {"1": ["stranger", "subject"], "2": ["stranger"], "3": ["stranger"]}


def test_at_most_one_face_a_photo_and_its_double_is_unsure() -> None:
    faces = {"1": (face("1", 0.3), face("1", 0.0)), "2": (face("2", 0.0),), "3": (face("3", 0.0),)}
    assert whose(faces)["1"] == ["unsure", "subject"]


def test_just_beyond_the_threshold_is_unsure_and_further_a_stranger() -> None:
    faces = {"1": (face("1", 0.0),), "2": (face("2", 0.0),), "3": (face("3", 0.65),), "4": (face("4", 0.7),)}
    assert whose(faces, (0.0,) * 128) == {"1": ["subject"], "2": ["subject"], "3": ["unsure"], "4": ["stranger"]}


def test_a_tie_goes_to_whom_there_is_more_of() -> None:
    faces = {"1": (face("1", 5.0, side=40), face("1", 0.0)), "2": (face("2", 0.0), face("2", 5.0, side=40))}
    assert whose(faces) == {"1": ["stranger", "subject"], "2": ["subject", "stranger"]}


def test_no_order_makes_a_difference() -> None:
    spread = [(math.cos(n) * 0.5, math.sin(n) * 0.5) for n in range(12)]
    faces = {str(n): (face(str(n), *place), face(str(n), *spread[n - 5])) for n, place in enumerate(spread)}
    turned = {photo: tuple(reversed(faces[photo])) for photo in reversed(faces)}
    assert {photo: list(reversed(found)) for photo, found in whose(turned).items()} == whose(faces)


def test_how_many_faces_are_compared_at_once_makes_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    spread = [(math.cos(n) * n / 9, math.sin(n) * n / 9) for n in range(12)]
    faces = {str(n): (face(str(n), *place, side=40 + n), face(str(n), 5.0)) for n, place in enumerate(spread)}
    before = decide(faces, NEAR, None)
    monkeypatch.setattr("lora_pipeline.stages.crop.whose.PAIRS", 5 * 24)
    assert decide(faces, NEAR, None) == before


def test_the_decision_is_left_for_others_to_read(tmp_path: Path) -> None:
    decided = decide({"1": (face("1", 0.5), face("1", 9.0)), "2": (face("2", 0.4),), "3": ()}, NEAR, None)
    with planning():
        write_decided(tmp_path, decided)
    assert decided_faces(tmp_path) == {}
    write_decided(tmp_path, decided)
    assert decided_faces(tmp_path) == decided
    assert subject_descriptors(tmp_path) == [decided["1"][0].descriptor, decided["2"][0].descriptor]
    assert [row.id for row in read(tmp_path, "decided").rows] == ["1", "2", "3"]


def test_no_faces_at_all() -> None:
    assert whose({"1": (), "2": ()}) == {"1": [], "2": []}


def known(photo: str, *place: float, found: bool = True) -> Face:
    """A face that the photo library says is the subject's."""
    return replace(face(photo, *place), known=True, confidence=1.0 if found else KNOWN_ONLY)


def test_a_known_face_decides_against_the_majority() -> None:
    faces = {"1": (face("1", 0.0), known("1", 5.0)), "2": (face("2", 0.1), face("2", 5.1)), "3": (face("3", 0.1),)}
    assert whose(faces) == {"1": ["stranger", "subject"], "2": ["stranger", "subject"], "3": ["stranger"]}


def test_a_known_face_is_the_subjects_however_unlike_and_goes_before_any_that_is_like() -> None:
    faces = {"1": (known("1", 0.0),), "2": (known("2", 0.1),), "3": (face("3", 0.05), known("3", 3.0))}
    assert whose(faces) == {"1": ["subject"], "2": ["subject"], "3": ["unsure", "subject"]}
    # Also where a reference speaks of another.
    assert whose({"3": faces["3"]}, (0.0,) * 128) == {"3": ["unsure", "subject"]}


def test_of_two_known_faces_in_a_photo_the_nearer_is_the_subjects_and_the_other_is_hidden() -> None:
    faces = {"1": (known("1", 4.0), known("1", 0.1)), "2": (known("2", 0.0),), "3": (known("3", 0.2),)}
    assert whose(faces)["1"] == ["unsure", "subject"]


def test_a_face_that_the_detector_did_not_find_says_nothing_of_the_centre(tmp_path: Path) -> None:
    guessed = {str(number): (known(str(number), 7.0, found=False),) for number in range(3)}
    faces = {**guessed, "9": (known("9", 0.0), face("9", 7.1)), "8": (face("8", 0.3),)}
    decided = decide(faces, NEAR, None)
    assert {photo: [one.whose for one in found] for photo, found in decided.items()} == {
        **{photo: ["subject"] for photo in guessed},
        "9": ["subject", "stranger"],
        "8": ["subject"],
    }
    write_decided(tmp_path, decided)
    assert subject_descriptors(tmp_path) == [faces["8"][0].descriptor, faces["9"][0].descriptor]
    # If there is none that it found, the guess is all there is.
    assert whose({**guessed, "8": (face("8", 7.1), face("8", 0.0))})["8"] == ["subject", "stranger"]


def by_hand(
    faces: dict[str, tuple[Face, ...]], reference: tuple[float, ...] | None = None, **said: str
) -> dict[str, list[str]]:
    """Whose the faces are, if of the face `p1_2` of photo 1, counted as `people` counts, that is said."""
    people = People({id[1:].replace("_", "#"): word for id, word in said.items()})
    return {photo: [one.whose for one in found] for photo, found in decide(faces, NEAR, reference, people).items()}


def at(photo: str, left: int, *place: float) -> Face:
    """A face at a place in the photo, so that it can be counted."""
    return replace(face(photo, *place), box=(left, 0, left + 100, 100))


COUPLE = {
    "1": (at("1", 300, 5.0), at("1", 0, 0.0)),  # the face at the left is number 1, whichever was found first
    "2": (at("2", 0, 5.1),),
    "3": (at("3", 0, 5.2),),
    "6": (at("6", 0, 5.15),),
    "4": (at("4", 0, 0.1),),
    "5": (at("5", 0, 9.0),),
}


def test_what_is_said_by_hand_holds_whatever_is_measured() -> None:
    assert by_hand(COUPLE)["1"] == ["subject", "stranger"]
    told = decide(COUPLE, NEAR, None, People({"4#1": "Anna", "3#1": "not_a_face", "5#1": "subject"}))
    assert {face.id: (face.whose, face.name, face.by_hand) for found in told.values() for face in found} == {
        "1#1": ("stranger", "", False),
        "1#2": ("subject", "", False),
        "2#1": ("subject", "", False),
        "3#1": ("not_a_face", "", True),
        "6#1": ("subject", "", False),
        "4#1": ("stranger", "Anna", True),
        "5#1": ("subject", "", True),
    }


def test_one_word_by_hand_overrules_the_majority() -> None:
    """The person in the most photos is the partner: the subject's own face in a photo of both is marked, once."""
    mine = {"1": ["stranger", "subject"], "2": ["stranger"], "3": ["stranger"], "4": ["subject"], "5": ["stranger"]}
    mine["6"] = ["stranger"]
    assert by_hand(COUPLE, p1_1="subject") == mine
    # Or one of each alone: what is said of one alone would fit a twin, or a profile.
    assert by_hand(COUPLE, p2_1="stranger", p4_1="subject") == mine
    assert by_hand(COUPLE, p2_1="stranger")["3"] == by_hand(COUPLE, p4_1="subject")["3"] == ["subject"]


def test_a_twin_that_is_settled_moves_the_subject_to_nobody_else() -> None:
    faces = {str(n): (at(str(n), 0, n / 50), at(str(n), 200, 7.0 + n)) for n in range(3)}
    faces |= {"t": (at("t", 0, 0.3),), "p": (at("p", 0, 2.0),)}
    settled = by_hand(faces, pt_1="Anna", p0_1="subject")
    assert settled == {**{str(n): ["subject", "stranger"] for n in range(3)}, "t": ["stranger"], "p": ["stranger"]}


def test_a_face_in_profile_that_is_settled_by_hand_draws_no_other_along() -> None:
    """It is far from the subject's others, and nothing speaks against the majority."""
    faces = {str(n): (at(str(n), 0, n / 50),) for n in range(8)} | {"p": (at("p", 0, 2.0),), "q": (at("q", 0, 2.1),)}
    assert by_hand(faces, pp_1="subject") == {
        **{str(n): ["subject"] for n in range(8)},
        "p": ["subject"],
        "q": ["stranger"],
    }


def test_a_face_that_is_settled_feeds_the_centre_and_a_strangers_never_does() -> None:
    faces = {str(n): (at(str(n), 0, 0.0),) for n in range(3)} | {"u": (at("u", 0, 0.65),), "v": (at("v", 0, 0.7),)}
    assert by_hand(faces)["u"] == ["unsure"]
    assert by_hand(faces)["v"] == ["stranger"]
    assert by_hand(faces, pu_1="subject")["v"] == ["subject"]  # the centre is 0.1625 now
    reference = (0.2, *[0.0] * 127)
    assert by_hand(faces, reference, pu_1="subject")["v"] == ["subject"]
    assert by_hand({**faces, "v": (at("v", 0, 0.85),)}, reference, pu_1="stranger")["v"] == ["unsure"]
    assert by_hand({**faces, "v": (at("v", 0, 0.85),)}, reference, pu_1="subject")["v"] == ["subject"]


def test_a_hand_wins_over_the_photo_library() -> None:
    faces = {"1": (known("1", 0.0),), "2": (known("2", 0.1),), "3": (replace(at("3", 0, 3.0), known=True),)}
    assert by_hand(faces, p3_1="stranger") == {"1": ["subject"], "2": ["subject"], "3": ["stranger"]}
    both = {**faces, "3": (replace(at("3", 0, 0.1), known=True), at("3", 200, 7.0))}
    assert by_hand(both, p3_2="subject")["3"] == ["unsure", "subject"]


def test_if_every_face_is_anothers_by_hand_nobody_is_the_subject() -> None:
    assert by_hand({"1": (at("1", 0, 0.0),), "2": (at("2", 0, 0.0),)}, p1_1="Anna", p2_1="Anna") == {
        "1": ["stranger"],
        "2": ["stranger"],
    }


def test_by_hand_a_photo_may_show_the_subject_twice() -> None:
    faces = {"1": (at("1", 0, 0.0), at("1", 200, 0.3)), "2": (at("2", 0, 0.1),)}
    assert by_hand(faces)["1"] == ["subject", "unsure"]
    assert by_hand(faces, p1_1="subject", p1_2="subject")["1"] == ["subject", "subject"]
