"""The small base model's parts: a Stable Diffusion pipeline of some 10 million numbers at 128 x 128 px.

Sizes are chosen for two CPU cores. The autoencoder is thin where pictures are large; the denoiser works on 16 x 16 latents.
"""

from __future__ import annotations

from typing import Any, Final

PICTURE_PX: Final = 128
LATENT_CHANNELS: Final = 12
LATENT_FACTOR: Final = 8


def new_autoencoder() -> Any:
    """An untrained `AutoencoderKL`: 3 x H x W in -1..1 to 12 x H/8 x W/8."""
    import torch
    from diffusers import AutoencoderKL

    autoencoder: Any = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,  # type: ignore[arg-type]
        up_block_types=("UpDecoderBlock2D",) * 4,  # type: ignore[arg-type]
        block_out_channels=(16, 48, 96, 128),  # type: ignore[arg-type]
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=PICTURE_PX,
        mid_block_add_attention=False,
    )
    # The encoder's spread is not learnt but fixed at exp(-10 / 2) = 0.007: small enough that a sampled latent and the mean
    # are the same picture. The decoder learns to bear noise from noise that training adds.
    with torch.no_grad():
        autoencoder.quant_conv.weight[LATENT_CHANNELS:].zero_()
        autoencoder.quant_conv.bias[LATENT_CHANNELS:] = -10.0
    return autoencoder
