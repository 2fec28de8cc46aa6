"""Whose face it is: by the most photos, or by a reference; at most one a photo; the same whatever the order."""

import math
from pathlib import Path

from lora_pipeline.manifest import planning, read
from lora_pipeline.records import Face
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
