"""The small base model's parts: a Stable Diffusion pipeline of some 10 million numbers at 128 x 128 px.

Sizes are chosen for two CPU cores. The autoencoder is thin where pictures are large; the denoiser works on 16 x 16 latents.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

PICTURE_PX: Final = 128
LATENT_CHANNELS: Final = 12
LATENT_FACTOR: Final = 8
TEXT_WIDTH: Final = 128
MAX_TOKENS: Final = 48


def new_autoencoder() -> Any:
    """An untrained `AutoencoderKL`: 3 x H x W in -1..1 to 12 x H/8 x W/8."""
    import torch
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    autoencoder: Any = AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,  # type: ignore[arg-type]
        up_block_types=("UpDecoderBlock2D",) * 4,  # type: ignore[arg-type]
        block_out_channels=(16, 48, 96, 128),  # type: ignore[arg-type]
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        # One group: with two channels a group, which 8 groups would be at full size, normalising takes a picture's colour away.
        norm_num_groups=1,
        sample_size=PICTURE_PX,
        mid_block_add_attention=False,
    )
    with torch.no_grad():
        _begin_with_colours(autoencoder)
        # The encoder's spread is not learnt but fixed at exp(-10 / 2) = 0.007: small enough that a sampled latent and the
        # mean are the same picture. The decoder learns to bear noise from noise that training adds.
        autoencoder.quant_conv.weight.zero_()
        autoencoder.quant_conv.bias.zero_()
        autoencoder.quant_conv.weight[:, :, 0, 0].fill_diagonal_(1.0)
        autoencoder.quant_conv.weight[LATENT_CHANNELS:].zero_()
        autoencoder.quant_conv.bias[LATENT_CHANNELS:] = -10.0
    return autoencoder


def _begin_with_colours(autoencoder: Any) -> None:
    """Sets the weights so that the first three latents are the mean colour of each 8 x 8 px, and are drawn as such.

    From random weights an autoencoder this small spends its first thousands of steps on one axis of colour after another.
    Residual branches begin at nothing, so the way through is linear, and silu(x) - silu(-x) = x carries it past the last
    non-linearity: channels 0..2 hold the colour there, channels 3..5 its negative.
    """
    import torch

    def through(conv: Any, taps: tuple[tuple[int, int], ...]) -> None:
        conv.weight[:6] = 0
        conv.bias[:6] = 0
        for channel in range(6):
            for row, column in taps:
                conv.weight[channel, channel, row, column] = 1 / len(taps)

    def colours_in(conv: Any) -> None:
        conv.weight[:6] = 0
        conv.bias[:6] = 0
        for channel in range(3):
            conv.weight[channel, channel, 1, 1] = 1.0
            conv.weight[channel + 3, channel, 1, 1] = -1.0

    def colours_out(conv: Any) -> None:
        conv.weight[:3] = 0
        conv.bias[:3] = 0
        for channel in range(3):
            conv.weight[channel, channel, 1, 1] = 0.5
            conv.weight[channel, channel + 3, 1, 1] = -0.5

    for name, module in autoencoder.named_modules():
        if name.endswith("conv2"):
            torch.nn.init.zeros_(module.weight)
            torch.nn.init.zeros_(module.bias)
        elif name.endswith("conv_shortcut"):
            through(module, ((0, 0),))
        elif "downsamplers" in name and name.endswith("conv"):
            through(module, ((0, 0), (0, 1), (1, 0), (1, 1)))
        elif "upsamplers" in name and name.endswith("conv"):
            through(module, ((1, 1),))
    colours_in(autoencoder.encoder.conv_in)
    colours_in(autoencoder.decoder.conv_in)
    colours_out(autoencoder.encoder.conv_out)
    colours_out(autoencoder.decoder.conv_out)
    torch.nn.init.dirac_(autoencoder.post_quant_conv.weight)
    torch.nn.init.zeros_(autoencoder.post_quant_conv.bias)


def caption_words() -> list[str]:
    """Every word that a caption of the drawn world can hold, each becoming one token."""
    from lora_pipeline.demo import world

    said = [
        "a photo of picture portrait drawing woman man person",
        *world.FRAMING_PHRASES.values(),
        *world.LIGHT_PHRASES.values(),
        *(world.angle_phrase(yaw) for yaw in (-30.0, 0.0, 30.0)),
        *(f"{colour} hair" for colour in world.HAIR_COLOURS),
        *(f"{colour} shirt" for colour in world.SHIRT_COLOURS),
        *(f"{colour} background" for colour in world.BACKGROUND_COLOURS),
        "wearing glasses no glasses",
    ]
    return sorted({word for phrase in said for word in phrase.split()})


def new_tokenizer() -> Any:
    """A CLIP tokenizer of some 800 tokens: bytes, and a token a caption word. Any string can be told in bytes."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    ends = ("<|startoftext|>", "<|endoftext|>")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    # Letters at a word's end, too, get their numbers here: the trainer would number them in the order of a hash table that is
    # another in each process, and with them which of two equally frequent pairs is merged first.
    trainer: Any = trainers.BpeTrainer(
        vocab_size=2000,
        min_frequency=1,
        initial_alphabet=letters,
        special_tokens=[f"{letter}</w>" for letter in letters],
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    trained.train_from_iterator([" ".join(caption_words())], trainer)
    merges: list[Any] = json.loads(trained.to_str())["model"]["merges"]
    pairs = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in merges]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *dict.fromkeys("".join(p) for p in pairs)]
    vocabulary = {token: i for i, token in enumerate([*dict.fromkeys(tokens), *ends])}
    tokenizer: Any = CLIPTokenizer(vocab=vocabulary, merges=pairs, model_max_length=MAX_TOKENS)  # type: ignore[arg-type]
    return tokenizer


def new_text_encoder(tokenizer: Any) -> Any:
    """An untrained `CLIPTextModel` of 128 numbers a token."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            projection_dim=TEXT_WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def new_denoiser() -> Any:
    """An untrained `UNet2DConditionModel` on 12 x 16 x 16 latents.

    Wide and deep at 16 x 16, where a latent is an eye: with 64 channels and one block there faces stayed smeared. It attends to
    the caption at 8 x 8 and 4 x 4, because attention at 16 x 16 would double a step's time on a CPU; a second way adds the
    pooled caption to the time's embedding, which reaches every block.
    """
    import torch
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    denoiser: Any = UNet2DConditionModel(
        sample_size=PICTURE_PX // LATENT_FACTOR,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(128, 128, 112),
        layers_per_block=(2, 1, 1),  # type: ignore[arg-type]
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
        addition_embed_type="text",
        addition_embed_type_num_heads=8,
    )
    # The second way begins as nothing.
    torch.nn.init.zeros_(denoiser.add_embedding.norm2.weight)
    return denoiser


def new_scheduler() -> Any:
    """DDIM that predicts v and ends in noise alone.

    Lin et al. 2024, "Common Diffusion Noise Schedules and Sample Steps are Flawed": Stable Diffusion's own schedule keeps 7% of
    the picture at its last step. Averaged over a background that is plenty to read its colour from, so a denoiser never
    learns to ask the caption for it; and sampling, which begins in noise alone, then reads a colour out of the noise.
    """
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )


def save_pipeline(folder: Path, autoencoder: Any, text_encoder: Any, tokenizer: Any, denoiser: Any) -> Path:
    """Writes the parts as a `StableDiffusionPipeline` folder, weights in half precision."""
    import torch
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

    pipeline: Any = StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=denoiser,
        scheduler=new_scheduler(),
        safety_checker=None,  # type: ignore[arg-type]
        feature_extractor=None,  # type: ignore[arg-type]
        requires_safety_checker=False,
    )
    pipeline = pipeline.to(dtype=torch.float16)
    pipeline.save_pretrained(folder, safe_serialization=True)
    # Otherwise transformers loads the text encoder in half precision beside a denoiser that diffusers loads in full.
    config = folder / "text_encoder" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "dtype": "float32"}, indent=2) + "\n")
    # The two files that programs older than transformers 5 look for.
    tokenizer.backend_tokenizer.model.save(str(folder / "tokenizer"))
    return folder
