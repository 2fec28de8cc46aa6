"""A validation picture drawn again from what it says of itself, and compared to the pixel."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from lora_pipeline.errors import PipelineError
from lora_pipeline.families import family
from lora_pipeline.settings import BaseSettings, GradeSettings
from lora_pipeline.stages.grade.draw import TOLD, Draw, Drawn, Wanted, through

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Redrawn:
    """A picture drawn again.

    Args:
        drawn: what both were drawn with.
        picture: the new one.
        differing: how many of its values (pixels × 3 colours) differ from the old one's.
        values: how many there are.
        most: by how many levels of 255 they differ at most.
        scheduler: the one that drew now, as in `Drawn`.
    """

    drawn: Drawn
    picture: "Image"
    differing: int
    values: int
    most: int
    scheduler: str

    def in_words(self) -> str:
        """Whether they are the same, and if not, by how much and from what it may come."""
        if not self.differing:
            return f"the same to the pixel ({self.values} values)"
        why = (
            f": the scheduler is another ({self.scheduler}; it was {self.drawn.scheduler})"
            if self.scheduler != self.drawn.scheduler
            else "; another device, number of threads or version of torch or diffusers rounds otherwise"
        )
        return f"not the same: {self.differing} of {self.values} values differ, by {self.most} of 255 at most{why}"


def read_told(path: Path) -> Drawn:
    """What a PNG of `draw_grids` says it was drawn with; its epoch is −1, which it does not say.

    Raises:
        PipelineError: it is no picture, or says nothing.
    """
    from PIL import Image

    try:
        with Image.open(path) as picture:
            text = cast(dict[str, Any], picture.info).get(TOLD)
        return Drawn(epoch=-1, **json.loads(str(text)))
    except (OSError, ValueError, TypeError):
        raise PipelineError(
            f"{path} does not say how it was drawn: it is no validation picture, or was saved again by a program that drops a PNG's text, "
            "or drawn before pictures said so (delete it in the grids folder and run again)"
        ) from None


def redraw(path: Path, drawn: Drawn, lora: Path | None, base: BaseSettings, draw: Draw | None = None) -> Redrawn:
    """Draw a validation picture again and compare.

    The batch is as large as it was, filled with copies, since the last bits depend on that (see `draw.through`): on a CPU, with the
    same versions and number of threads, it is the same picture to the pixel.

    Args:
        path: the picture that was drawn.
        drawn: how.
        lora: the file of `drawn.checkpoint`; None for the base model.
        base: the base model, whose digest must be `drawn.base`.
        draw: None is the base's own pipeline.

    Raises:
        PipelineError: the base model is another, or it draws numbers that are not finite.
        ModelError: the base model cannot be opened.
    """
    from PIL import Image

    digest = family(base.family).digest(base)
    if digest != drawn.base:
        raise PipelineError(
            f"{path.name} was drawn with another base model (digest {drawn.base[:16]}) than {base.model} (digest {digest[:16]}); "
            "set base.family, base.model, base.vae and base.clip_skip as they were"
        )
    settings = GradeSettings.model_validate(
        {
            "negative_prompt": drawn.negative_prompt,
            "sampling_steps": drawn.sampling_steps,
            "guidance_scale": drawn.guidance_scale,
            "sampler": drawn.sampler,
            "size_px": drawn.size_px,
        }
    )
    wanted = Wanted(drawn.prompt, drawn.seed, drawn.strength)
    (picture,) = (draw or through(base, settings, drawn.batch))(lora, [wanted])
    if picture is None:
        raise PipelineError(f"{path.name}: numbers that are not finite (NaN) come out, so there is nothing to compare")
    with Image.open(path) as before:
        old, new = np.asarray(before.convert("RGB"), dtype=np.int16), np.asarray(picture, dtype=np.int16)
    if old.shape != new.shape:
        raise PipelineError(
            f"{path} is {old.shape[1]} × {old.shape[0]} px, and was drawn with {drawn.size_px} px: it was changed since"
        )
    apart = np.abs(old - new)
    scheduler = str(picture.info.get("scheduler", ""))
    return Redrawn(drawn, picture, int((apart > 0).sum()), apart.size, int(apart.max()), scheduler)
