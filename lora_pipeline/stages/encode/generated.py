"""Regularisation pictures that the base model draws itself: what it takes the class word to mean before it learns the subject.

Ruiz et al. 2023, "DreamBooth", section 3.3: the prior is kept with pictures of the model's own.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lora_pipeline.errors import PipelineError
from lora_pipeline.families import best_device, family
from lora_pipeline.settings import BaseSettings, EncodeSettings

if TYPE_CHECKING:
    from PIL.Image import Image


def prompt_of(class_word: str) -> str:
    """The prompt, and the caption that the picture is then trained with."""
    return f"a photo of a {class_word}"


@dataclass(frozen=True)
class Painter:
    """The base's stock pipeline, opened for the first picture, on a GPU if there is one (then in 16 bits)."""

    settings: EncodeSettings
    base: BaseSettings

    @cached_property
    def told(self) -> list[str | int | float]:
        """All that a picture hangs on beside its prompt and its seed."""
        settings = self.settings
        how = (
            settings.regularisation_sampling_steps,
            settings.regularisation_guidance_scale,
            settings.resolution_px,
        )
        return [family(self.base.family).digest(self.base), *how]

    @cached_property
    def _pipeline(self) -> Any:
        base_family, device = family(self.base.family), best_device()
        return base_family.pipeline(self.base, device, base_family.half if device == "cuda" else "float32")

    def draw(self, prompt: str, seed: int) -> "Image":
        """A square picture at the training size, alone in its batch, so that it hangs on no other.

        Raises:
            ModelError: the base model cannot be opened.
            PipelineError: it gives numbers that are not finite.
        """
        import numpy as np
        import torch
        from PIL import Image

        settings = self.settings
        values = self._pipeline(
            prompt=[prompt],
            generator=[torch.Generator("cpu").manual_seed(seed)],
            num_inference_steps=settings.regularisation_sampling_steps,
            **family(self.base.family).guided(settings.regularisation_guidance_scale, [""]),
            height=settings.resolution_px,
            width=settings.resolution_px,
            output_type="np",
        ).images[0]  # H×W×3 float32, 0 to 1
        if not np.isfinite(values).all():
            raise PipelineError(f"the base model gives numbers that are not finite (NaN) for '{prompt}', seed {seed}")
        return Image.fromarray((values * 255).round().astype(np.uint8))
