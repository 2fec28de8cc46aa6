"""`photos.yaml`: which photos a person keeps or drops. It lies beside `subject.yaml`, and wins over everything measured.

```yaml
IMG_2055.jpg: drop
holiday/IMG_7.jpg: keep       # blurred, but the only one in profile
```

A photo is named by its id, its path within the photo folder. What could not be read stays out, whatever stands here.
"""

import difflib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal

import yaml

from lora_pipeline.by_hand import lines_of
from lora_pipeline.errors import SubjectError
from lora_pipeline.store import write_text

FILE = "photos.yaml"
Verdict = Literal["keep", "drop"]
WORDS: tuple[Verdict, ...] = ("keep", "drop")
_HEAD = "# Photos that a person keeps or drops (photo: keep or drop). What stands here wins.\n"


def read(folder: Path) -> dict[str, Verdict]:
    """Photo id → what a person has decided of it; nothing, if there is no `photos.yaml` in the subject's folder.

    Raises SubjectError, in words, if it is not YAML, or not `keep` or `drop` a photo.
    """
    file = folder / FILE
    verdicts: dict[str, Verdict] = {}
    for id, word in lines_of(file, "a line a photo, such as `IMG_2055.jpg: drop`").items():
        verdict: Verdict | None = next((own for own in WORDS if own == word), None)
        if verdict is None:
            near = difflib.get_close_matches(str(word).casefold(), WORDS, 1, 0.5)
            hint = f"did you mean {near[0]}?" if near else "say keep or drop"
            raise SubjectError(f"{file}: `{id}: {word}` says neither keep nor drop; {hint}")
        verdicts[str(id)] = verdict
    return verdicts


def write(folder: Path, changes: Mapping[str, Verdict | None]) -> dict[str, Verdict]:
    """Write verdicts into `photos.yaml` beside those that stand there; None takes one out. Comments in the file are lost.

    Args:
        folder: the subject's.
        changes: photo id → verdict.

    Returns:
        what stands there now. Raises SubjectError as `read` does.
    """
    both: dict[str, Verdict | None] = {**read(folder), **changes}
    verdicts: dict[str, Verdict] = {id: verdict for id, verdict in sorted(both.items()) if verdict is not None}
    write_text(folder / FILE, _HEAD + yaml.safe_dump(verdicts, sort_keys=False, allow_unicode=True))
    return verdicts


def doubts(verdicts: Mapping[str, Verdict], photos: Collection[str]) -> list[str]:
    """A sentence for each verdict on a photo that there is not, with the one whose name is nearest."""
    told: list[str] = []
    for id in sorted(set(verdicts) - set(photos)):
        near = difflib.get_close_matches(id, list(photos), 1, 0.6)
        told.append(f"{FILE} speaks of {id}, which there is not" + (f"; the nearest: {near[0]}" if near else ""))
    return told
