"""Prompts that a language model writes: asked for once and remembered beside the grids, so that a rerun asks nobody and draws the same."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from lora_pipeline.errors import PassingError, PipelineError
from lora_pipeline.manifest import Item, Made, refresh
from lora_pipeline.progress import Progress, silent
from lora_pipeline.records import Value

CODE_VERSION = "1"
TABLE = "llm_prompts"
ROUNDS = 3
"""So often it is asked, while there are fewer usable prompts than wanted."""
MOST_WORDS = 60  # about what CLIP's 77 tokens hold

_PLACEHOLDERS = ("{trigger}", "{class}")
_BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.):])\s*")


class Writer(Protocol):
    """A language model that is asked in words alone."""

    @property
    def identity(self) -> str:
        """Which one; another is asked anew."""
        ...

    def lines(self, question: str) -> tuple[list[str], Mapping[str, Value]]:
        """The lines of its answer, none of them empty, and what it took: `requests`, `tokens_in`, `tokens_out`."""
        ...


def llm_prompts(
    prompts: Sequence[str],
    count: int,
    trigger: str,
    class_word: str,
    folder: Path,
    writer: Writer,
    progress: Progress = silent,
) -> tuple[str, ...]:
    """Validation prompts by a language model, each with {trigger} and {class} in it once; none of those that there are.

    What goes out is the question: the prompts that there are, trigger and class word. No picture does.

    Args:
        prompts: those that there are, which show it what is wanted, with {trigger} and {class} in them.
        count: how many are wanted; fewer come where it gives no more in `ROUNDS` answers.
        folder: the grids'. The table there is `llm_prompts`: one row, whose data are `prompts` and what they took.
        writer: who is asked, unless the same was asked of it before.

    Raises:
        ModelError: it is out of reach, or refuses.
        PipelineError: it gave no answer, or none with a usable prompt. The next run asks again.
    """

    def ask(_: None, __: Path) -> Made:
        found: list[str] = []
        took = {"requests": 0, "tokens_in": 0, "tokens_out": 0}
        said: list[str] = []
        for _round in range(ROUNDS):
            question = _question([*prompts, *found], count - len(found), trigger, class_word)
            said, spent = writer.lines(question)
            took = {name: before + int(str(spent.get(name) or 0)) for name, before in took.items()}
            usable = [text for line in said if (text := _usable(line)) and text not in prompts]
            found = list(dict.fromkeys([*found, *usable]))[:count]
            if len(found) == count:
                break
        if not found:
            raise PassingError(
                f"grade.llm_prompts: in {ROUNDS} answers the language model gave no prompt with both {{trigger}} and {{class}} in it; the "
                f"last began '{' '.join(said)[:120]}': choose another (describe.llm_model), or grade.varied_prompts"
            )
        return Made({"prompts": found, **took})

    inputs = [_question(prompts, count, trigger, class_word), writer.identity]
    outcome = refresh(
        folder,
        [Item("prompts", inputs, None)],
        ask,
        settings=None,
        code_version=CODE_VERSION,
        name=TABLE,
        what="ask for prompts",
        progress=progress,
    )
    row = outcome.manifest.row("prompts")
    if row.state != "kept":
        raise PipelineError(row.reason)
    told = row.data["prompts"]
    return tuple(str(text) for text in told) if isinstance(told, list) else ()


def _question(prompts: Sequence[str], count: int, trigger: str, class_word: str) -> str:
    there = "\n".join(prompts)
    return (
        f"Write {count} prompts for an image model, to see whether it has learned a subject and stays free to draw it in new places, clothes, "
        f"light, views and styles. {{trigger}} stands for {trigger}, the made-up name of the subject, and {{class}} for {class_word}, what it "
        "is: in every prompt both stand exactly once, in their braces, beside each other. Plain English, 8 to 30 words, one prompt a line, "
        f"no numbers in front and nothing else. All different from each other and from these, which are there already:\n{there}"
    )


def _usable(line: str) -> str:
    """The prompt in a line; empty if it is none."""
    text = _BULLET.sub("", line).strip().strip("\"'“”*").strip()
    named = all(text.count(name) == 1 for name in _PLACEHOLDERS)
    return text if named and text.count("{") == 2 and len(text.split()) <= MOST_WORDS else ""
