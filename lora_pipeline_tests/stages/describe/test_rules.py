"""The rules after a captioner, each by worked examples."""

import pytest

from lora_pipeline.settings import SUBJECT_WORDS
from lora_pipeline.stages.describe import rules

HAIR_AND_EYES = {"hair", "eyes"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1girl, long brown hair, red shirt", {"long brown hair"}),
        ("a woman with long brown hair and blue eyes wearing a hat", {"long brown hair", "blue eyes"}),
        ("jx265 is at sea. She has brown hair, and her Blue Eyes shine.", {"brown hair"}),
        ("a woman with brown hair tied in a bun", set[str]()),
        ("a woman with a hat and a red shirt", set[str]()),
        ("her hair is wet", set[str]()),
        ("chair, hairy dog", set[str]()),
        ("", set[str]()),
    ],
)
def test_what_is_said_of_the_subject(text: str, said: set[str]) -> None:
    assert rules.about(text, HAIR_AND_EYES) == said


def test_without_words_for_it_every_phrase_is_about_it() -> None:
    assert rules.about("white background, Blue Mug.", ()) == {"white background", "blue mug"}


def test_clothes_and_moods_are_not_the_subject_by_default() -> None:
    assert rules.about("red coat, smiling, open mouth, blue sky, standing", SUBJECT_WORDS) == set()


def test_what_stands_in_more_than_the_share_of_the_photos_never_changes() -> None:
    said = {str(photo): ["brown hair, red shirt"] for photo in range(4)} | {"4": ["blue eyes, red shirt"]}
    assert rules.constant(said, HAIR_AND_EYES, 0.7) == {"brown hair"}
    assert rules.constant(said, HAIR_AND_EYES, 0.8) == set()  # 4 of 5 are not more than 0.8
    assert rules.constant(said, (), 0.7) == {"brown hair", "red shirt"}
    assert rules.constant(said, HAIR_AND_EYES, 0) == set()


def test_many_crops_of_a_photo_count_once_and_three_photos_say_nothing() -> None:
    said = {"a": ["brown hair"] * 9, "b": ["blue eyes"], "c": ["at sea"], "d": ["at home"]}
    assert rules.constant(said, HAIR_AND_EYES, 0.5) == set()
    assert rules.constant({photo: ["brown hair"] for photo in "abc"}, HAIR_AND_EYES, 0.5) == set()


@pytest.mark.parametrize(
    ("text", "dropped", "left"),
    [
        ("1girl, brown hair, red shirt", {"brown hair"}, "1girl, red shirt"),
        ("1girl, Brown Hair", {"brown hair"}, "1girl"),
        ("a woman with brown hair and a red shirt", {"brown hair"}, "a woman with a red shirt"),
        ("a woman with a red shirt and brown hair, at sea", {"brown hair"}, "a woman with a red shirt, at sea"),
        (
            "jx265 is a woman with long brown hair wearing a hat.",
            {"long brown hair"},
            "jx265 is a woman wearing a hat.",
        ),
        ("at sea. She has brown hair and blue eyes.", {"brown hair", "blue eyes"}, "at sea."),
        ("a man with a grey beard, smiling", {"grey beard"}, "a man, smiling"),
        ("a woman with brown hair tied in a bun", {"brown hair"}, "a woman with brown hair tied in a bun"),
        ("long brown hair, at sea", {"brown hair"}, "long brown hair, at sea"),
        ("brown hair", {"brown hair"}, ""),
    ],
)
def test_what_never_changes_is_left_out_and_the_rest_still_reads(text: str, dropped: set[str], left: str) -> None:
    words, left_out = rules.without(text, dropped)
    assert words == left
    assert left_out == ([] if left == text else sorted(dropped))


def test_what_is_left_alone_is_left_to_the_letter() -> None:
    assert rules.without("a dog ,  on  the beach", {"brown hair"}) == ("a dog ,  on  the beach", [])


@pytest.mark.parametrize(
    ("text", "blacklist", "left"),
    [
        ("1girl, solo, signature on a wall", ["solo", "signature"], "1girl, on a wall"),
        ("A photo of a dog", ["a photo of"], "a dog"),
        ("solo, solos", ["solo"], "solos"),
        ("a dog.", ["cat"], "a dog."),
        ("c++ code", ["c++"], "code"),
    ],
)
def test_blacklisted_words_go_whole(text: str, blacklist: list[str], left: str) -> None:
    assert rules.blacked_out(text, blacklist) == left


def test_tags_in_the_order_asked_for() -> None:
    assert rules.ordered("at sea, smiling, red shirt, noon", ["shirt", "smiling"]) == "red shirt, smiling, at sea, noon"
    assert rules.ordered("b, a", ["c"]) == "b, a"


@pytest.mark.parametrize(
    ("words", "tags", "caption"),
    [
        ("a dog", [], "jx265 woman, a dog"),
        ("a dog", ["beach"], "jx265 woman, beach, a dog"),
        ("jx265 is at sea.", [], "jx265 is at sea."),
        ("jx265 is at sea.", ["beach"], "jx265 is at sea, beach"),
        ("jx2650 is at sea", [], "jx265 woman, jx2650 is at sea"),
    ],
)
def test_trigger_and_class_in_front_once(words: str, tags: list[str], caption: str) -> None:
    assert rules.fronted(words, "jx265 woman", "jx265", tags) == caption


@pytest.mark.parametrize(
    ("yaw_deg", "token"),
    [
        (None, ()),
        (0.0, ("frontal",)),
        (-11.9, ("frontal",)),
        (12.0, ("three-quarter right",)),
        (-30.0, ("three-quarter left",)),
        (45.0, ("right profile",)),
        (-60.0, ("left profile",)),
    ],
)
def test_the_angle_in_words(yaw_deg: float | None, token: tuple[str, ...]) -> None:
    assert rules.angle_token(yaw_deg) == token


def test_expressions_with_their_per_cent() -> None:
    assert rules.expression_token([("sad", 0.05), ("neutral", 0.9), ("angry", 0.01)]) == ("neutral_90 sad_5",)
    assert rules.expression_token([("very happy", 0.996)]) == ("very_happy_100",)
    assert rules.expression_token([]) == ()
