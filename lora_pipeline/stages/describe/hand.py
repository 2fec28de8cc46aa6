"""Captions by a person's hand: text files beside the photos' folder, one a photo."""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lora_pipeline.errors import PhotoError


@dataclass(frozen=True)
class Written:
    """What a person wrote about a photo.

    Args:
        file: where, for the message.
        text: all of it; a file that cannot be read as UTF-8 has `unreadable` instead.
        unreadable: why.
    """

    file: Path
    text: str
    unreadable: str = ""


def written(captions: Path, photo: str) -> Written | None:
    """The caption file of a photo, the one with the fullest name: `<photo id>.txt`, the id without its suffix, or `<stem>.txt`."""
    for file in places(captions, photo):
        if file.is_file():
            try:
                return Written(file, file.read_text(encoding="utf-8-sig"))
            except UnicodeDecodeError:
                return Written(file, "", "it is not UTF-8 text")
            except OSError as error:
                return Written(file, "", error.strerror or str(error))
    return None


def places(captions: Path, photo: str) -> list[Path]:
    """Where the caption of a photo may stand, the fullest name first, which is where a new one is written."""
    id = PurePosixPath(photo)
    return [captions / name for name in (f"{photo}.txt", f"{id.with_suffix('')}.txt", f"{id.stem}.txt")]


def filled(text: str, trigger: str, class_word: str) -> str:
    """One line, with {trigger} and {class} filled in."""
    return " ".join(text.replace("{trigger}", trigger).replace("{class}", class_word).split())


def names(text: str, trigger: str) -> bool:
    """Whether the trigger word stands in a text as a word of its own."""
    return re.search(rf"(?<!\w){re.escape(trigger)}(?!\w)", text) is not None


def caption(by_hand: Written, trigger: str, class_word: str) -> tuple[str, str]:
    """The caption that a person wrote, and a note on what was added to it (or nothing).

    Raises:
        PhotoError: the file is empty or cannot be read.
    """
    text = filled(by_hand.text, trigger, class_word)
    if by_hand.unreadable:
        raise PhotoError(f"captions/{by_hand.file.name} cannot be read: {by_hand.unreadable}")
    if not text:
        raise PhotoError(f"captions/{by_hand.file.name} is empty; write a caption in it, or remove it")
    if names(text, trigger):
        return text, ""
    return (
        f"{trigger} {class_word}, {text}",
        f"the trigger word was not in it, so '{trigger} {class_word}' was put first",
    )
