"""Trigger words: what the base takes them for, and rare ones made of a name."""

from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from lora_pipeline.cli import app
from lora_pipeline.errors import SettingsError
from lora_pipeline.families.vocabulary import Vocabulary, clip
from lora_pipeline.recipes import recipe
from lora_pipeline.trigger import judge, judged, offers, shifted


@pytest.mark.parametrize(
    ("name", "far", "word"),
    [("Tim", 1, "ujn"), ("xyz", 3, "abc"), ("José", 0, "jose"), ("Jo-Ann 2", 25, "inzmm"), ("李", 1, "")],
)
def test_a_caesar_shift(name: str, far: int, word: str) -> None:
    assert shifted(name, far) == word


@pytest.mark.parametrize("word", ["Tim", "woman", "sks", "Tim Smith"])
def test_a_word_or_a_name_is_known_already(word: str) -> None:
    assert "is known to the base already" in judge(word, [clip()], 5).in_words


def test_a_word_that_is_split_badly() -> None:
    told = judge("zxqwvbnmklk", [clip()], 5)
    assert len(told.tokens) == 8
    assert "is split into more tokens than check.max_trigger_tokens (5)" in told.in_words
    assert not judge("zxqwvbnmklk", [clip()], 8).against


def test_a_good_one() -> None:
    told = judge("jx265", [clip()], 5)
    assert not told.against
    assert told.in_words == "'jx265' is 5 tokens of CLIP's vocabulary (j x 2 6 5), and no word or name that it knows"


def test_the_tokenizer_that_likes_it_least_decides() -> None:
    knows = Vocabulary("one that knows it", lambda text: [text])
    for order in ([clip(), knows], [knows, clip()]):
        told = judge("ujn", order, 5)
        assert (told.by, bool(told.against)) == ("one that knows it", True)
    letters = Vocabulary("one of letters", list)
    assert judge("ujn", [clip(), letters], 5).by == "one of letters"


def test_without_a_tokenizer_nothing_is_claimed() -> None:
    told = judge("tim", [], 5)
    assert not told.against
    assert "is not checked" in told.in_words
    settings = recipe("sd15_person").changed({"base": {"model": "/nowhere/at/all"}}, "test")
    assert judged("Tim", settings) == judge("Tim", [], 5)


def test_offered_are_shifts_that_the_base_neither_knows_nor_splits_badly() -> None:
    for name in ("Tim", "Miriam", "Al"):
        words = offers(name, [clip()], 5)
        assert 1 <= len(words) <= 8
        assert all(2 <= len(one.tokens) <= 5 for one in words)
        assert {one.word for one in words} <= {shifted(name, far) for far in range(1, 26)}
        assert [len(one.tokens) for one in words] == sorted(len(one.tokens) for one in words)
    assert offers("Tim", [clip()], 5)[0].word == "ujn"


@pytest.mark.parametrize("name", ["", "李", "x", "!?"])
def test_a_name_without_letters_is_refused_in_words(name: str) -> None:
    with pytest.raises(SettingsError, match="two letters"):
        offers(name, [clip()], 5)


def test_a_name_none_of_whose_shifts_will_do_is_refused_in_words() -> None:
    with pytest.raises(SettingsError, match="no shift of 'Bartholomew'"):
        offers("Bartholomew", [clip()], 2)


def test_the_terminal_offers_them() -> None:
    done = CliRunner().invoke(app, ["trigger", "Tim"])
    assert done.exit_code == 0
    assert "'Tim' is known to the base already" in done.output
    assert "ujn           2       u jn" in done.output


def test_new_and_status_flag_a_word_that_is_known(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "photos" / "a.png")
    for trigger, flagged in (("Tim", True), ("ujn", False)):
        name = f"s{trigger.lower()}"
        words = (
            f"new {name} --photos {tmp_path / 'photos'} --kind pet --trigger {trigger} --class dog --recipe sd15_pet"
        )
        for command in (words, f"status {name}"):
            done = CliRunner().invoke(app, [*command.split(), "--home", str(tmp_path)])
            assert done.exit_code == 0, done.output
            assert ("is known to the base already" in done.output) == flagged
