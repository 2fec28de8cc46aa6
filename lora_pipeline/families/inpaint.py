"""Drawing a part of a picture anew, with the inpainting pipeline that diffusers has for a base model's own parts.

A base that was not made for it is held to what surrounds the part at every step (Avrahami et al. 2023, "Blended Latent
Diffusion", algorithm 1), as diffusers' pipelines do by themselves; a model that was made for it sees the surroundings.
"""

import logging
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lora_pipeline.errors import ModelError, PipelineError
from lora_pipeline.families import best_device, family
from lora_pipeline.families.stock import loaded, stock_class, to
from lora_pipeline.families.weights import digest_of, read_json, weights_of
from lora_pipeline.settings import BaseSettings

if TYPE_CHECKING:
    from PIL.Image import Image

# As diffusers' AutoPipelineForInpainting has it, whose import takes ten seconds.
INPAINTING = {
    "StableDiffusionPipeline": "StableDiffusionInpaintPipeline",
    "StableDiffusionXLPipeline": "StableDiffusionXLInpaintPipeline",
    "StableDiffusion3Pipeline": "StableDiffusion3InpaintPipeline",
    "FluxPipeline": "FluxInpaintPipeline",
    "QwenImagePipeline": "QwenImageInpaintPipeline",
    "ZImagePipeline": "ZImageInpaintPipeline",
}
"""Stock pipelines of diffusers, each with the one that draws a part anew with the same parts."""


@dataclass(frozen=True)
class Inpainter:
    """An inpainting pipeline, opened for the first picture, on a GPU if there is one (then in 16 bits).

    Args:
        base: the base model whose parts draw, unless
        model: names another, a diffusers folder or a hub id of whatever class diffusers has an inpainting pipeline for.
    """

    base: BaseSettings
    model: str = ""

    def check(self) -> None:
        """Make sure, before any other work, that the weights are there or can be had. Raises ModelError."""
        if self.model and weights_of(self.model).is_file:
            raise ModelError(f"conceal.inpaint_model {self.model}: set it to a diffusers folder or a hub id")
        if not self.model:
            family(self.base.family).check(self.base)
        model = weights_of(self.model) if self.model else weights_of(self.base.model, self.base.revision)
        index = read_json(model, "model_index.json")
        if index is not None:
            _class_for(str(index.get("_class_name")))

    @property
    def digest(self) -> str:
        """Identity of the weights, for a memo's key. Raises ModelError as `check`."""
        if self.model:
            return digest_of(weights_of(self.model), (".",))
        return family(self.base.family).digest(self.base)

    def draw(self, picture: "Image", part: "Image", prompt: str, seed: int, steps: int, guidance: float) -> "Image":
        """The picture with a part of it drawn anew from noise, at the size that the model draws in, enlarged or reduced to its own.

        The model never sees what was there: latents beside the part have looked into it, as far as the autoencoder reaches, so
        it is painted over with the mean colour of the rest first.

        Args:
            picture: H×W, 8-bit RGB.
            part: H×W, 8-bit grey, 255 where it is drawn anew.
            prompt: of the whole picture.
            seed: of the noise, which comes from the CPU whatever the device, so that one seed is one picture.
            steps: denoising steps.
            guidance: its scale; 1 is none.

        Raises:
            ModelError: the model cannot be opened, or diffusers has no inpainting pipeline for it.
            PipelineError: it gives numbers that are not finite.
        """
        import numpy as np
        import torch
        from PIL import Image

        rest = np.asarray(picture)[np.asarray(part) == 0]
        blank = picture.copy()
        blank.paste(tuple(int(level) for level in rest.mean(0)) if len(rest) else (127, 127, 127), mask=part)
        values = self._pipeline(
            prompt=prompt,
            image=blank,
            mask_image=part,
            strength=1.0,  # nothing of what was there is left in the noise
            generator=torch.Generator("cpu").manual_seed(seed),
            num_inference_steps=steps,
            guidance_scale=guidance,
            output_type="np",
        ).images[0]  # H×W×3 float32, 0 to 1
        if not np.isfinite(values).all():
            raise PipelineError(f"the model gives numbers that are not finite (NaN) for a face, seed {seed}")
        drawn = Image.fromarray((values * 255).round().astype(np.uint8))
        return drawn.resize(picture.size, Image.Resampling.LANCZOS)

    @cached_property
    def _pipeline(self) -> Any:
        device = best_device()
        half = family(self.base.family).half if device == "cuda" else "float32"
        pipeline = self._opened(device, half) if self.model else self._of_the_base(device, half)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def _of_the_base(self, device: str, dtype: str) -> Any:
        import torch

        whole = family(self.base.family).pipeline(self.base, device, dtype)
        kind = _class_for(type(whole).__name__)
        # It casts to a dtype that the parts have already (float32, unless told), and warns of each.
        log = logging.getLogger("diffusers.models.modeling_utils")
        level = log.level
        log.setLevel(logging.ERROR)
        try:
            told = {} if dtype == "float32" else {"torch_dtype": getattr(torch, dtype)}
            pipeline = kind.from_pipe(whole, **told)
        finally:
            log.setLevel(level)
        unet = getattr(pipeline, "unet", None)
        if unet is not None:
            # "4" is the pipeline's word for "not made for it"; the autoencoder says how many channels a latent has.
            unet.register_to_config(in_channels=4)
        return pipeline

    def _opened(self, device: str, dtype: str) -> Any:
        model = weights_of(self.model)
        config = loaded(model, lambda where, more: stock_class("DiffusionPipeline").load_config(where, **more))
        kind = _class_for(str(config.get("_class_name")))
        # Without the checker, which would black out a face that it dislikes: what is drawn here is there to hide.
        unchecked = {"safety_checker": None, "requires_safety_checker": False} if "safety_checker" in config else {}
        pipeline = loaded(
            model, lambda where, more: kind.from_pretrained(where, use_safetensors=True, **unchecked, **more)
        )
        for part in pipeline.components.values():
            if hasattr(part, "parameters"):
                to(part, device, dtype)
        return pipeline


def _class_for(pipeline_class: str) -> Any:
    name = pipeline_class if pipeline_class in INPAINTING.values() else INPAINTING.get(pipeline_class)
    if name is None:
        raise ModelError(
            f"conceal.method: diffusers has no inpainting for a {pipeline_class}; name another model as conceal.inpaint_model, "
            "or choose gaussian, pixelate or solid"
        )
    return stock_class(name)
