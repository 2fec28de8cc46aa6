"""Plugs: one file a base-model family, behind the protocol in `protocol.py`. Nothing heavy is imported before it is needed."""

import gc
import logging
import os
import sys

from lora_pipeline.errors import SettingsError
from lora_pipeline.families.flux import Flux
from lora_pipeline.families.flux2_klein import Flux2Klein
from lora_pipeline.families.protocol import (
    Conditioning,
    Family,
    NoiseSchedule,
    PictureEncoder,
    PredictionKind,
    Quantised,
    TextEncoder,
)
from lora_pipeline.families.qwen_image import QwenImage
from lora_pipeline.families.sd15 import StableDiffusion15
from lora_pipeline.families.sd35 import StableDiffusion35
from lora_pipeline.families.sdxl import StableDiffusionXL
from lora_pipeline.families.weights import base_path
from lora_pipeline.families.z_image import ZImage

__all__ = [
    "FAMILIES",
    "Conditioning",
    "Family",
    "NoiseSchedule",
    "PictureEncoder",
    "PredictionKind",
    "Quantised",
    "TextEncoder",
    "base_path",
    "best_device",
    "family",
    "give_back_memory",
]

# Three warnings that are no news to anybody here: a kernel for 4-bit weights that is not installed, that a LoRA of the denoiser
# holds nothing for the text encoder, and that a long caption is cut (at each step, where SDXL's text encoders are trained).
for noisy in (
    "bitsandbytes.backends.cpu.ops",
    "diffusers.loaders.peft",
    "diffusers.loaders.lora_base",
    "diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl",
):
    logging.getLogger(noisy).setLevel(logging.ERROR)

# torch's threads on the CPU wait for each other by spinning, unless told otherwise before torch is imported. On two cores of which
# something else wants one, a training step of the bundled model took 0.4 to 1.2 s spinning and 0.13 s not.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

FAMILIES: dict[str, Family] = {
    one.name: one
    for one in (
        StableDiffusion15(),
        StableDiffusionXL(),
        Flux(),
        StableDiffusion35(),
        Flux2Klein(),
        ZImage(),
        QwenImage(),
    )
}


def family(name: str) -> Family:
    """The family of that name. Raises SettingsError with the nearest name."""
    if name not in FAMILIES:
        import difflib

        near = difflib.get_close_matches(name, FAMILIES, n=1, cutoff=0.4)
        hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(FAMILIES)}"
        raise SettingsError(f"base.family: there is no family '{name}'; {hint}")
    return FAMILIES[name]


def best_device() -> str:
    """Where to compute: the first CUDA device, Apple's GPU, or the CPU."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def give_back_memory() -> None:
    """Let go of models that nobody holds any more: torch keeps their place on a graphics card, and from other processes, until it is told."""
    gc.collect()
    if "torch" in sys.modules:
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()
