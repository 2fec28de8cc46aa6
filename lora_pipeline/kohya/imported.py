"""What an import leads to: frozen, every key of the source in a row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import TypeAdapter, ValidationError

from lora_pipeline.settings import Settings, sentences

Fate = Literal["set", "as here", "no matter", "not yet", "by hand", "unknown"]
"""
- `set`: changes settings here;
- `as here`: what it asks for is what is done here anyway;
- `no matter`: says nothing of what is learnt (paths, logs, speed);
- `not yet`: cannot be trained here yet, so the result will differ;
- `by hand`: can be had here, but not from this file alone: the row says how;
- `unknown`: no key that the trainer has.
"""


@dataclass(frozen=True)
class Row:
    """One key of the source, and what became of it.

    Args:
        key: as it stands there, with the table it stands in; in brackets for what the source leaves unsaid.
        given: its value.
        fate: see `Fate`.
        words: why, and what to do.
        sets: settings (section.field) and their values.
    """

    key: str
    given: Any
    fate: Fate
    words: str = ""
    sets: tuple[tuple[str, Any], ...] = ()

    @property
    def told(self) -> str:
        """What became of it, in words."""
        sets = ", ".join(f"{name} = {_shown(value)}" for name, value in self.sets)
        begin = {"not yet": "not trained here yet: ", "unknown": "unknown: ", "by hand": "by hand: "}
        told = "; ".join(part for part in (sets, begin.get(self.fate, "") + self.words) if part)
        return told or FATES[self.fate]


@dataclass(frozen=True)
class Imported:
    """What was read.

    Args:
        source: file or folder.
        what: in words, such as "civitai JSON".
        recipe: to start from.
        rows: every key, in the source's order, then what the source leaves unsaid.
        photos, trigger, class_word, kind: of the subject, where the source says them.
        captions: text by file name, for the subject's folder of captions by hand.
    """

    source: Path
    what: str
    recipe: str
    rows: tuple[Row, ...]
    photos: Path | None = None
    trigger: str = ""
    class_word: str = ""
    kind: str = ""
    captions: Mapping[str, str] = field(default_factory=dict)

    @property
    def changes(self) -> dict[str, dict[str, Any]]:
        """Section → field → value, as `subject.yaml` holds them."""
        tree: dict[str, dict[str, Any]] = {}
        for row in self.rows:
            for name, value in row.sets:
                section, _, one = name.partition(".")
                tree.setdefault(section, {})[one] = list(value) if isinstance(value, tuple) else value
        return tree

    def table(self) -> str:
        """Every row, as the terminal shows it, and how many there are of each fate."""
        rows = [("key", "given", "here"), *((row.key, _shown(row.given), row.told) for row in self.rows)]
        widths = [min(WIDEST, max(len(row[column]) for row in rows)) for column in (0, 1)]
        lines = [f"{key:<{widths[0]}}  {given:<{widths[1]}}  {told}".rstrip() for key, given, told in rows]
        counts = {fate: sum(row.fate == fate for row in self.rows) for fate in FATES}
        total = "; ".join(f"{words}: {counts[fate]}" for fate, words in FATES.items() if counts[fate])
        return "\n".join([f"{self.source} ({self.what}), on the recipe {self.recipe}", *lines, "", total])


WIDEST = 44
FATES: dict[Fate, str] = {
    "set": "set",
    "as here": "as it is here anyway",
    "no matter": "without effect on what is learnt",
    "not yet": "not trained here yet",
    "by hand": "to do by hand",
    "unknown": "unknown",
}


def checked(name: str, value: Any) -> tuple[Any, str]:
    """A setting's value as the settings hold it; or why it cannot be had, in words.

    Args:
        name: section.field.
        value: of any type: "5e-4" is a number.
    """
    section, _, one = name.partition(".")
    info = getattr(Settings(), section).__class__.model_fields[one]
    kind: Any = Annotated[info.annotation, info]  # pyright: ignore[reportInvalidTypeForm]  # built from the field itself
    try:
        return TypeAdapter[Any](kind).validate_python(value), ""
    except ValidationError as error:
        return None, sentences(error)


def _shown(value: Any) -> str:
    text = ("true" if value else "false") if isinstance(value, bool) else f"{value}"
    if isinstance(value, tuple | list):
        text = ", ".join(str(one) for one in cast(Sequence[Any], value))
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"
