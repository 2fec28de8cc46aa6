from pathlib import Path

import pytest

from lora_pipeline.errors import PipelineError, SettingsError
from lora_pipeline.settings import GradeSettings, Settings
from lora_pipeline.stages.grade import prompts_of, read_prompts, varied

DREAMBOOTH = Path(__file__).parents[4] / "shared" / "data" / "dreambooth_prompts.txt"
REAL = [
    pytest.mark.real,
    pytest.mark.skipif(not DREAMBOOTH.exists(), reason="the benchmark's prompts are not beside the checkout"),
]
FEW = (
    "a photo of {trigger} {class}, red shirt",
    "an oil painting of {trigger} {class}",
    "{trigger} {class} on a beach",
)


def test_without_a_list_or_a_file_the_recipes_prompts_stand() -> None:
    settings = GradeSettings(negative_prompt="blurred")
    assert prompts_of(settings, "person", Path()).texts == settings.prompts
    assert prompts_of(settings, "person", Path()).negative == "blurred"


@pytest.mark.parametrize(("name", "count"), [("objects", 25), ("living", 25), ("portraits", 20)])
def test_the_lists_that_ship_name_trigger_and_class_in_each_prompt(name, count) -> None:
    texts = prompts_of(GradeSettings(prompt_list=name), "person", Path()).texts
    assert len(texts) == count
    assert [text for text in texts if text.count("{trigger}") != 1 or "{class}" not in text] == []
    assert [text for text in texts if text != text.strip() or "  " in text] == []


def test_portraits_have_a_negative_prompt_which_the_persons_own_replaces() -> None:
    assert "extra fingers" in prompts_of(GradeSettings(prompt_list="portraits"), "person", Path()).negative
    own = GradeSettings(prompt_list="portraits", negative_prompt="hats")
    assert prompts_of(own, "person", Path()).negative == "hats"
    assert prompts_of(GradeSettings(prompt_list="living"), "person", Path()).negative == ""


def test_a_file_has_a_prompt_a_line(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text(
        "# mine\n\n {trigger} {class} auf dem Eis \n{trigger} in Paris\n{trigger} in Paris\n"
    )
    asked = prompts_of(GradeSettings(prompts_file="mine.txt"), "person", tmp_path)
    assert asked.texts == ("{trigger} {class} auf dem Eis", "{trigger} in Paris")


@pytest.mark.parametrize("content", [None, b"# nothing\n\n", b"\xff\xfe\x00"])
def test_a_file_without_prompts_is_told(tmp_path: Path, content) -> None:
    if content is not None:
        (tmp_path / "mine.txt").write_bytes(content)
    with pytest.raises(PipelineError, match=r"grade\.prompts_file: .*mine\.txt (cannot be read|holds no prompt)"):
        prompts_of(GradeSettings(prompts_file="mine.txt"), "person", tmp_path)


def test_the_form_of_the_benchmarks_file(tmp_path: Path) -> None:
    file = tmp_path / "benchmark.txt"
    file.write_text(
        "Classes\n\nsubject_name,class\nduck,toy\n\nPrompts\n\nObject Prompts\n\nprompt_list = [\n"
        "'a {0} {1} in a shed'.format(unique_token, class_token),\n'one more {1}'.format(unique_token, class_token)\n]\n\n"
        'Live Subject Prompts\n\nprompt_list = [\n"a {0} {1}\'s hat".format(unique_token, class_token),\n]\n'
    )
    for kind in ("product", "style"):
        assert read_prompts(file, kind) == ("a {trigger} {class} in a shed", "one more {class}")
    for kind in ("person", "pet"):
        assert read_prompts(file, kind) == ("a {trigger} {class}'s hat",)


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=REAL) for kind in ("product", "pet")])
def test_the_benchmarks_own_file(kind) -> None:
    asked = prompts_of(GradeSettings(prompts_file=str(DREAMBOOTH)), kind, Path()).texts
    assert len(asked) == 25
    assert asked[0] == "a {trigger} {class} in the jungle"
    assert (
        asked[12]
        == f"a {{trigger}} {{class}} {'with the Eiffel Tower in the background' if kind == 'product' else 'wearing a rainbow scarf'}"
    )
    assert [text for text in asked if text.count("{trigger} {class}") != 1] == []
    ours = {
        text.replace("photo of ", "")
        for name in ("objects", "living", "portraits")
        for text in prompts_of(GradeSettings(prompt_list=name), kind, Path()).texts
    }
    assert not ours & set(asked)  # the lists that ship are our own


def test_varied_prompts_are_new_and_always_the_same_ones() -> None:
    made = varied(FEW, 30)
    assert len(set(made)) == 30
    assert not set(made) & set(FEW)
    assert varied(FEW, 30) == made
    assert varied(FEW, 7) == made[:7]  # so that asking for more draws the new ones alone
    assert all("{trigger} {class}" in text for text in made)
    assert any("oil painting" in text and "shirt" in text for text in made)  # heads and tails are paired anew
    assert (
        len(
            {
                colour
                for text in made
                for colour in ("red", "green", "yellow", "pink", "blue")
                if f"{colour} shirt" in text
            }
        )
        > 1
    )
    assert not [text for text in made if " a orange" in text or " an red" in text]
    assert not [
        text for text in made if "beach" in text and ("kitchen" in text or "forest" in text)
    ]  # one place is enough


def test_varied_prompts_come_after_those_there_are() -> None:
    asked = prompts_of(GradeSettings(prompts=FEW, varied_prompts=3), "person", Path())
    assert asked.texts == (*FEW, *varied(FEW, 3))
    assert varied(("a red ball",), 0) == ()


def test_a_grammar_that_has_no_more_gives_fewer() -> None:
    assert 10 < len(varied(("{trigger}",), 5000)) < 5000


def test_settings_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(SettingsError, match="set one of them"):
        Settings().changed({"grade": {"prompt_list": "living", "prompts_file": "mine.txt"}}, "test")
    with pytest.raises(SettingsError, match="let 1 be among them"):
        Settings().changed({"grade": {"strengths": (0.5, 0.8)}}, "test")
    with pytest.raises(SettingsError, match="greater than 0"):
        Settings().changed({"grade": {"strengths": (0, 1)}}, "test")
