"""What every source of photos gives: files that are to have a row, and what the source knows of them."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lora_pipeline.records import Box, State

Fractions = tuple[float, float, float, float]
"""A box as shares of the upright picture's width and height: left, top, width, height, from its top left corner."""

# A folder of kohya's trainer, `<repeats>_<token> <class>`, says how to train and nothing of what is to be seen.
REPEATS = re.compile(r"\d+_.+")


@dataclass(frozen=True, slots=True)
class Found:
    """A photo that is to have a row.

    Args:
        id: its path within its source, with forward slashes.
        file: its absolute path, as text (ten thousand of `Path` take 6 MB); of a photo that must be fetched, where it will lie.
        problem: why it is not even opened, or empty.
        state: of the row, if there is a problem: failed, or dropped if the source itself leaves it out.
        tags: names of the folders in which it lies, outermost first.
        faces: where the source says that the subject's face is.
        version: what the source knows the file's content by; empty if the file is there to be read.
        fetch: brings the file to the path that it is given, for a photo that is no file of the person's. It may raise PhotoError.
    """

    id: str
    file: str
    problem: str = ""
    state: State = "failed"
    tags: tuple[str, ...] = ()
    faces: tuple[Fractions, ...] = ()
    version: str = ""
    fetch: Callable[[Path], None] | None = None

    @property
    def path(self) -> Path:
        """`file`, to be opened."""
        return Path(self.file)


def tags_of(id: str) -> tuple[str, ...]:
    """The folders in an id, outermost first, but for those that kohya's trainer names."""
    return tuple(part for part in PurePosixPath(id).parts[:-1] if not REPEATS.fullmatch(part))


def in_pixels(face: Fractions, width: int, height: int) -> Box | None:
    """A box in whole pixels of the upright picture, cut to it; None if nothing is left of it."""
    left, top = max(0, round(face[0] * width)), max(0, round(face[1] * height))
    right = min(width, round((face[0] + face[2]) * width))
    bottom = min(height, round((face[1] + face[3]) * height))
    return (left, top, right, bottom) if left < right and top < bottom else None
