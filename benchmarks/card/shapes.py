"""Denoisers in their full size with random weights, and a training set for them that nothing has to be encoded for.

How long a step takes hangs on the shape and not on what the numbers are. Shapes: the config.json files of
stable-diffusion-v1-5/stable-diffusion-v1-5, stabilityai/stable-diffusion-xl-base-1.0 and black-forest-labs/FLUX.1-dev.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.sd15_shape import DENOISER
from lora_pipeline.families.flux import Flux
from lora_pipeline.families.sd15 import StableDiffusion15
from lora_pipeline.families.sdxl import StableDiffusionXL
from lora_pipeline.families.stock import StockFamily, stock_class
from lora_pipeline.records import Example
from lora_pipeline.stages.fit.trainer import Cached

_CELL_PX = 8


@dataclass(frozen=True)
class Shape:
    """A base model, as far as a step's time hangs on it.

    Args:
        family: which reads it.
        side_px: of its pictures.
        channels: of their latents.
        told: by name, the shape of what the denoiser is told of one picture.
        scheduler: in diffusers, with its defaults.
        config: the denoiser's, where it is not its class's own.
    """

    family: StockFamily
    side_px: int
    channels: int
    told: Mapping[str, tuple[int, ...]]
    scheduler: str
    config: Mapping[str, Any]


SHAPES = {
    "SD 1.5": Shape(StableDiffusion15(), 512, 4, {"encoder_hidden_states": (77, 768)}, "DDIMScheduler", DENOISER),
    "SDXL": Shape(
        StableDiffusionXL(),
        1024,
        4,
        {"encoder_hidden_states": (77, 2048), "text_embeds": (1280,)},
        "DDIMScheduler",
        {
            "sample_size": 128,
            "block_out_channels": (320, 640, 1280),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": (1, 2, 10),
            "attention_head_dim": (5, 10, 20),
            "cross_attention_dim": 2048,
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
    ),
    "FLUX": Shape(
        Flux(),
        1024,
        16,
        {"encoder_hidden_states": (512, 4096), "pooled_projections": (768,)},
        "FlowMatchEulerDiscreteScheduler",
        {"guidance_embeds": True},
    ),
}


def build(shape: Shape, folder: Path, device: str) -> Path:
    """Write the denoiser (in bf16, drawn on that device) and its scheduler as a diffusers folder, and give the folder."""
    denoiser(shape, device).save_pretrained(folder / shape.family.denoiser_folder)
    stock_class(shape.scheduler)().save_pretrained(folder / "scheduler")
    return folder


def denoiser(shape: Shape, device: str) -> Any:
    """The denoiser in bf16 on a device, frozen. On "meta" it takes no memory, and has no numbers."""
    import torch

    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            return stock_class(shape.family.denoiser_class)(**shape.config).requires_grad_(False)
    finally:
        torch.set_default_dtype(torch.float32)


def training_set(shape: Shape, batch: int) -> list[Cached]:
    """So many pictures of noise, each told of with noise, nothing hidden."""
    import torch

    torch.manual_seed(0)
    side = shape.side_px // _CELL_PX
    return [
        Cached(
            str(number),
            Example(str(number), (shape.side_px, shape.side_px), repeats=1, caption="", hidden=0.0),
            (torch.randn(shape.channels, side, side),),
            (torch.ones(1, side, side),),
            {name: torch.randn(size) for name, size in shape.told.items()},
        )
        for number in range(batch)
    ]
