"""Prompts that a language model writes, behind a real server on loopback."""

from pathlib import Path

import pytest

from lora_pipeline.errors import PipelineError
from lora_pipeline.models.llm import Llm
from lora_pipeline.stages.grade import llm_prompts

FEW = ("a photo of {trigger} {class}",)
GOOD = [f"{{trigger}} {{class}} on hill {number}" for number in range(4)]


def asked(folder: Path, address: str, count: int = 2, few: tuple[str, ...] = FEW, **more) -> tuple[str, ...]:
    writer = Llm(address, "poet", "", sleep=lambda _: None, attempts=2, **more)
    return llm_prompts(few, count, "ohwx", "woman", folder, writer)


def test_a_line_is_a_prompt_if_it_names_trigger_and_class_once(chat, tmp_path: Path) -> None:
    chat.answers = [
        "<think>{trigger} {class} in a dream</think>Here are your prompts:\n\n"
        f"1. {GOOD[0]}\n* **{GOOD[1]}**\n- \"{GOOD[1]}\"\n{FEW[0]}\nohwx woman at sea\n{{trigger}} at sea\n"
        f"{{trigger}} {{class}} and {{trigger}}\n{{trigger}} {{class}} in {{place}}\n{{trigger}} {{class}}{' very' * 60}\n3) {GOOD[2]}"
    ]  # fmt: skip
    assert asked(tmp_path, chat.address, 3) == tuple(GOOD[:3])
    assert len(chat.asked) == 1


def test_what_is_missing_is_asked_for_again_and_fewer_than_wanted_will_do(chat, tmp_path: Path) -> None:
    chat.answers = [GOOD[0], f"{GOOD[0]}\n{GOOD[1]}", "I have no more."]
    assert asked(tmp_path, chat.address, 4) == tuple(GOOD[:2])
    questions = [question["messages"][0]["content"] for question in chat.asked]
    assert [text.split(" prompts")[0] for text in questions] == ["Write 4", "Write 3", "Write 2"]
    assert GOOD[0] not in questions[0]
    assert GOOD[0] in questions[1]


def test_more_than_wanted_are_not_taken(chat, tmp_path: Path) -> None:
    chat.answers = ["\n".join(GOOD)]
    assert asked(tmp_path, chat.address, 2) == tuple(GOOD[:2])


def test_the_same_is_asked_once_and_another_question_or_model_anew(chat, tmp_path: Path) -> None:
    chat.answers = ["\n".join(GOOD)]
    first = asked(tmp_path, chat.address)
    chat.answers = ["\n".join(GOOD[2:])]
    assert asked(tmp_path, chat.address) == first
    assert len(chat.asked) == 1
    assert asked(tmp_path, chat.address, few=("a painting of {trigger} {class}",)) == tuple(GOOD[2:])
    assert asked(tmp_path, chat.address.replace("/v1", "/../v1")) == tuple(GOOD[2:])
    assert len(chat.asked) == 3


def test_an_answer_without_prompts_is_told_and_tried_again_by_the_next_run(chat, tmp_path: Path) -> None:
    chat.answers = ["I am sorry."]
    with pytest.raises(
        PipelineError, match=r"in 3 answers .* no prompt with both \{trigger\} and \{class\}.*'I am sorry"
    ):
        asked(tmp_path, chat.address)
    chat.answers = ["\n".join(GOOD)]
    assert asked(tmp_path, chat.address) == tuple(GOOD[:2])


def test_a_service_out_of_reach_is_told(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="does not answer"):
        asked(tmp_path, "http://127.0.0.1:9/v1")
