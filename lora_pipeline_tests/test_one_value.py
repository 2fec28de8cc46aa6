"""A value set in YAML or taken out of it, and the rest of the text as it was."""

import pytest
import yaml

from lora_pipeline.one_value import with_value, without_value

PICK = ("settings", "grade", "pick")
OTHER = "# mine\nname: ann  # she said so\n"


@pytest.mark.parametrize(
    ("settings", "written"),
    [
        ("", "settings: {grade: {pick: 4}}\n"),
        ("settings: {}\n", "settings: {grade: {pick: 4}}\n"),
        (
            "settings:\n  # low\n  fit: {unet_lr: 1.0e-4}\n",
            "settings:\n  # low\n  grade: {pick: 4}\n  fit: {unet_lr: 1.0e-4}\n",
        ),
        ("settings: {fit: {epochs: 3}}\n", "settings: {grade: {pick: 4}, fit: {epochs: 3}}\n"),
        ("settings:\n  grade:\n    seeds: [1]  # one\n", "settings:\n  grade:\n    pick: 4\n    seeds: [1]  # one\n"),
        ("settings: {grade: {seeds: [1], pick: 12}}\n", "settings: {grade: {seeds: [1], pick: 4}}\n"),
        ("settings:\n  grade:\n    pick: 12  # hers\n", "settings:\n  grade:\n    pick: 4  # hers\n"),
    ],
)
def test_a_value_is_put_in_and_nothing_else_moves(settings: str, written: str) -> None:
    text = with_value(OTHER + settings, PICK, 4)
    if settings:
        assert text == OTHER + written
    else:  # before its neighbours, under the comment
        assert text == "# mine\n" + written + OTHER.removeprefix("# mine\n")
    assert yaml.safe_load(text)["settings"]["grade"]["pick"] == 4
    assert yaml.safe_load(text)["name"] == "ann"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("settings: {grade: {pick: 4}}\n", "settings: {grade: {}}\n"),
        ("settings: {grade: {pick: 4, seeds: [1]}}\n", "settings: {grade: {seeds: [1]}}\n"),
        ("settings: {grade: {seeds: [1], pick: 4}}\n", "settings: {grade: {seeds: [1], }}\n"),
        ("settings:\n  grade:\n    pick: 4\n    seeds: [1]\n", "settings:\n  grade:\n    seeds: [1]\n"),
        ("settings:\n  grade:\n    pick: 4  # hers\n    seeds: [1]\n", "settings:\n  grade:\n      # hers\n    seeds: [1]\n"),
        ("settings:\n  grade:\n    pick: 4  # hers\n", "settings:\n  grade:\n    {}  # hers\n"),
        ("settings:\n  grade:\n    seeds: [1]\n", "settings:\n  grade:\n    seeds: [1]\n"),
        ("{}\n", "{}\n"),
    ],
)  # fmt: skip
def test_a_value_is_taken_out_and_nothing_else_moves(before: str, after: str) -> None:
    assert without_value(before, PICK) == after
    told = yaml.safe_load(before)
    told.get("settings", {}).get("grade", {}).pop("pick", None)
    assert yaml.safe_load(after) == told


def test_what_was_put_in_comes_out_again_to_the_letter() -> None:
    text = OTHER + "settings:\n\n  grade:\n    # few\n    seeds: [1, 2]\n\n    size_px: 512\n"
    assert without_value(with_value(text, PICK, 4), PICK) == text


def test_a_key_that_holds_no_mapping_is_refused() -> None:
    with pytest.raises(ValueError, match="no mapping"):
        with_value("settings: [1]\n", PICK, 4)
    with pytest.raises(ValueError, match="no mapping"):
        without_value("settings: [1]\n", PICK)
