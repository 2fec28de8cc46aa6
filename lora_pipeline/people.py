"""`people.yaml`: whose face is whose, by a person's hand. It lies beside `subject.yaml`, and wins over everything measured.

```yaml
IMG_2055.jpg#1: subject
IMG_2055.jpg#2: stranger
IMG_2056.jpg#1: not_a_face      # a face of a statue, a knot in wood: neither hidden nor anybody's
holiday/IMG_7.jpg#3: Anna       # a stranger who has a name
```

A face's id is its photo's id, `#`, and its number: the photo's faces counted from 1, from left to right by the left edge of the
box, those on one column from the top down. So it stays while the photo and the detector do, whatever other photos come or go and in
whichever order faces are found. Another `crop.detector` or `crop.search_px` may find other faces, and so count otherwise.
"""

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from lora_pipeline.by_hand import lines_of
from lora_pipeline.errors import SubjectError
from lora_pipeline.records import Box, Whose
from lora_pipeline.store import write_text

FILE = "people.yaml"
WORDS: tuple[Whose, ...] = ("subject", "stranger", "not_a_face")
_HEAD = "# Whose face is whose (face id: subject, stranger, not_a_face, or a stranger's name). What stands here wins.\n"


def face_ids(photo: str, boxes: Sequence[Box]) -> list[str]:
    """The ids of a photo's faces, in the order of `boxes`. Those of equal boxes cannot be told apart; detectors find none twice."""
    order = sorted(range(len(boxes)), key=lambda number: boxes[number])
    place = {number: position for position, number in enumerate(order, start=1)}
    return [f"{photo}#{place[number]}" for number in range(len(boxes))]


@dataclass(frozen=True)
class People:
    """What `people.yaml` says.

    Args:
        decisions: face id → `subject`, `stranger`, `not_a_face`, or the name of a person who is not the subject.
    """

    decisions: Mapping[str, str] = field(default_factory=dict)

    def whose(self, face_id: str) -> Whose | None:
        """Whose the face is; None if nothing is said of it."""
        word = self.decisions.get(face_id)
        if word is None:
            return None
        return word if word in WORDS else "stranger"

    def name(self, face_id: str) -> str:
        """The name of the stranger whose face it is; empty if none is said."""
        word = self.decisions.get(face_id, "")
        return "" if word in WORDS else word

    def doubts(self, face_ids: Collection[str]) -> list[str]:
        """What is probably a slip of the pen, a sentence each: an id that none of these faces has, a name that is nearly one of the words."""
        told: list[str] = []
        for id, word in sorted(self.decisions.items()):
            if id not in face_ids:
                told.append(f"{FILE} speaks of {id}, which there is not{_nearest(id, face_ids)}")
            near = difflib.get_close_matches(word.casefold(), WORDS, 1, 0.75)
            if word not in WORDS and near:
                told.append(f"{FILE} says that {id} is the face of a stranger named {word}; did you mean {near[0]}?")
        return told


def _nearest(id: str, face_ids: Iterable[str]) -> str:
    """Of the faces of the same photo, all; else the id that is most alike."""
    beside = sorted(one for one in face_ids if one.rpartition("#")[0] == id.rpartition("#")[0])
    near = beside or difflib.get_close_matches(id, list(face_ids), 1, 0.6)
    return f"; the nearest: {', '.join(near)}" if near else ""


def read(folder: Path) -> People:
    """What a person has decided of faces; nothing, if there is no `people.yaml` in the subject's folder.

    Raises SubjectError, in words, if it is not YAML, or not a word a face.
    """
    file = folder / FILE
    lines = lines_of(file, "a line a face, such as `IMG_2055.jpg#1: subject`")
    for id, word in lines.items():
        if not isinstance(id, str) or not isinstance(word, str) or not word.strip():
            raise SubjectError(
                f"{file}: `{id}: {word}` is to be a face's id and a word ({', '.join(WORDS)}, or a person's name in quotes)"
            )
    return People({str(id): str(word).strip() for id, word in lines.items()})


def write(folder: Path, changes: Mapping[str, str | None]) -> People:
    """Write decisions into `people.yaml` beside those that stand there; None takes one out. Comments in the file are lost.

    Args:
        folder: the subject's.
        changes: face id → a word as in `People`.

    Returns:
        what stands there now. Raises SubjectError as `read` does.
    """
    decisions = {**read(folder).decisions, **changes}
    people = People({id: word for id, word in sorted(decisions.items()) if word is not None})
    write_text(folder / FILE, _HEAD + yaml.safe_dump(dict(people.decisions), sort_keys=False, allow_unicode=True))
    return people
