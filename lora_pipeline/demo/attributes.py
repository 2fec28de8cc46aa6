"""How many of the things that a prompt asks for the drawn world's reader sees in a picture."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from PIL import Image

from lora_pipeline.demo.reader import PHRASES, WEIGHTS, load_reader, read
from lora_pipeline.store import digest_file

READ_PX = 128
"""Side of the pictures that the reader was calibrated on."""


class Attributes:
    """Agreement of a picture and a prompt by the reader's words; opened when the first picture comes."""

    name = "asked for and shown"

    @property
    def identity(self) -> str:
        """For a memo's key."""
        return f"attributes 1 {digest_file(WEIGHTS)}"

    def agreement(self, picture: Image.Image, prompt: str) -> float | None:
        """Share (0 to 1) of the prompt's phrases, between commas, that the picture shows; None if it asks for nothing that can be read."""
        said = {part.strip() for part in prompt.split(",")}
        asked = {kind: phrase for kind, phrases in PHRASES.items() for phrase in phrases if phrase in said}
        if not asked:
            return None
        shown = picture.convert("RGB")
        if shown.size != (READ_PX, READ_PX):
            shown = shown.resize((READ_PX, READ_PX), Image.Resampling.LANCZOS)
        (seen,) = read(self._reader, [shown])
        return sum(seen[kind] == phrase for kind, phrase in asked.items()) / len(asked)

    @cached_property
    def _reader(self) -> Any:
        return load_reader()
