"""What is drawn: the recipe's prompts, a list that ships here, or a person's file, and varied ones made out of these."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from lora_pipeline.errors import PipelineError
from lora_pipeline.records import Kind
from lora_pipeline.settings import GradeSettings

LISTS = Path(__file__).with_name("lists")

# A line of DreamBooth's file: a Python string with {0} and {1} in it, and what these are, which is a call of its format method.
_FORMATTED = re.compile(r"""^(['"])(?P<text>.*)\1\.format\((?P<names>[\w\s,]+)\),?$""")
_TOKENS = {"unique_token": "{trigger}", "class_token": "{class}"}
_PLACED = re.compile(r"\b(in|on|at|under|beside|by|with|next|background|studio|street|wall|outdoors|indoors)\b")
_A_VOWEL = re.compile(r"\b([Aa]) (?=[aeiou])")


@dataclass(frozen=True)
class Prompts:
    """What the settings ask to be drawn.

    Args:
        texts: with {trigger} and {class} in them, each once.
        negative: what to draw away from.
    """

    texts: tuple[str, ...]
    negative: str


def prompts_of(settings: GradeSettings, kind: Kind, folder: Path) -> Prompts:
    """The prompts that the settings ask for.

    Args:
        settings: prompts, prompt_list, prompts_file, varied_prompts and negative_prompt; a list's own negative prompt counts where
            that is empty.
        kind: of a file with a list for objects and another for live subjects, product and style have the first, the others the second.
        folder: where a relative prompts_file lies.

    Raises:
        PipelineError: the file cannot be read, or holds no prompt.
    """
    texts, negative = settings.prompts, ""
    if settings.prompt_list != "none":
        told = _yaml(settings.prompt_list)
        texts, negative = tuple(told["prompts"]), str(told["negative_prompt"])
    if settings.prompts_file:
        texts = read_prompts(folder / Path(settings.prompts_file).expanduser(), kind)
    texts = tuple(dict.fromkeys(texts))
    return Prompts((*texts, *varied(texts, settings.varied_prompts)), settings.negative_prompt or negative)


def read_prompts(file: Path, kind: Kind) -> tuple[str, ...]:
    """Prompts of a file, with {trigger} and {class} where the subject is named.

    Two forms are known. In the first, each line is a prompt; empty lines and lines that begin with # are none. The second is the
    prompt file of DreamBooth's benchmark (google/dreambooth, `prompts_and_classes.txt`): lines of Python, under headings, of which
    `unique_token` becomes the trigger word and `class_token` the class word.

    Raises:
        PipelineError: the file cannot be read, or holds no prompt.
    """
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise PipelineError(
            f"grade.prompts_file: {file} cannot be read as text: {error}; name a file with one prompt a line"
        ) from None
    if any(_FORMATTED.match(line) for line in lines):
        found = _of_dreambooth(lines, live=kind in {"person", "pet"})
    else:
        found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise PipelineError(f"grade.prompts_file: {file} holds no prompt; write one a line")
    return tuple(dict.fromkeys(found))


def _of_dreambooth(lines: Sequence[str], live: bool) -> list[str]:
    """The prompts under the heading for live subjects, or for objects; all of them where there are no such headings."""
    heading = ""
    under: dict[str, list[str]] = {}
    for line in lines:
        if found := _FORMATTED.match(line):
            names = [name.strip() for name in found["names"].split(",")]
            under.setdefault(heading, []).append(found["text"].format(*(_TOKENS.get(name, name) for name in names)))
        elif line.lower().endswith("prompts"):
            heading = "live" if "live" in line.lower() else "object"
    return under.get("live" if live else "object") or [prompt for prompts in under.values() for prompt in prompts]


def varied(prompts: Sequence[str], count: int) -> tuple[str, ...]:
    """Make prompts out of a few by a small grammar: the same prompts give the same ones, and the first n are the same whatever the count.

    prompt → head, tail, [place], [light], [view]. A head is what a prompt says up to its subject ("an oil painting of {trigger}
    {class}"), a tail what one says after it (", wearing a red shirt"); they are paired anew, colours are exchanged, and a place is added
    only where nothing is said of one.

    Args:
        prompts: with {trigger} and {class}.
        count: how many to make; fewer come where the grammar has no more.
    """
    if not count:
        return ()
    words = cast(dict[str, list[str]], _yaml("varied"))
    colours = re.compile(rf"\b({'|'.join(words['colour'])})\b")
    parts = [_parted(prompt) for prompt in prompts]
    heads, tails = (tuple(dict.fromkeys(part[side] for part in parts)) for side in (0, 1))
    dice = random.Random(0)
    made: dict[str, None] = {}
    for _ in range(50 * count):
        if len(made) == count:
            break
        head, tail = (colours.sub(lambda _: dice.choice(words["colour"]), dice.choice(side)) for side in (heads, tails))
        place = "" if _PLACED.search(f"{head} {tail}") else f" {dice.choice(words['place'])}"
        more = [dice.choice(words[slot]) for slot in ("light", "view") if dice.random() < 0.5]
        text = _A_VOWEL.sub(r"\1n ", f"{head}{place}{tail}{''.join(f', {word}' for word in more)}")
        if text not in prompts:
            made[text] = None
    return tuple(made)


def _parted(prompt: str) -> tuple[str, str]:
    """A prompt up to its subject, and after it."""
    end = max((prompt.rfind(name) + len(name) for name in ("{trigger}", "{class}") if name in prompt), default=0)
    return (prompt[:end], prompt[end:]) if end else (prompt, "")


def _yaml(name: str) -> dict[str, Any]:
    import yaml

    return cast(dict[str, Any], yaml.safe_load((LISTS / f"{name}.yaml").read_text(encoding="utf-8")))
