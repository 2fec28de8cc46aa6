"""A face drawn over by a diffusion model."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lora_pipeline.families.inpaint import Inpainter
from lora_pipeline.records import Box
from lora_pipeline.settings import ConcealSettings
from lora_pipeline.store import digest_bytes

if TYPE_CHECKING:
    from PIL.Image import Image

PROMPTS = {"inpaint": "", "swap": "close portrait of a person, facing the camera"}
"""Methods that draw, each with what it asks the model for: whatever goes with the surroundings, or anybody."""
WINDOW = 2.6
"""Side of the square that the model is shown, in sides of the face: a portrait's, so that it draws a head of the right size."""


@dataclass(frozen=True)
class Artist:
    """Draws another face over a face.

    Args:
        inpainter: who holds the model.
        settings: the method's prompt, steps and guidance.
        picture: digest of the picture, of which its noise's seed is made, so that no two pictures show the same stranger.
        attempt: another gives another face.
    """

    inpainter: Inpainter
    settings: ConcealSettings
    picture: str
    attempt: int = 0

    def draw(self, picture: "Image", face: Box, shape: "Image") -> "Image":
        """`cover.DrawFace`. What the square has beyond the picture's edges is their mirror image. Raises as `Inpainter.draw`."""
        import numpy as np
        from PIL import Image

        side = round(WINDOW * max(face[2] - face[0], face[3] - face[1]))
        left, top = (face[0] + face[2] - side) // 2, (face[1] + face[3] - side) // 2
        beyond = ((side, side), (side, side))
        pixels = np.pad(np.asarray(picture), (*beyond, (0, 0)), mode="symmetric")
        part = np.pad(np.asarray(shape), beyond, mode="symmetric")
        window = np.s_[top + side : top + 2 * side, left + side : left + 2 * side]
        seed = int(digest_bytes(f"{self.picture} {face} {self.attempt}".encode())[:8], 16)
        settings = self.settings
        drawn = self.inpainter.draw(
            Image.fromarray(pixels[window]),
            Image.fromarray(part[window]),
            PROMPTS[settings.method],
            seed,
            settings.inpaint_sampling_steps,
            settings.inpaint_guidance_scale,
        )
        whole = picture.copy()
        whole.paste(drawn, (left, top))
        return whole
