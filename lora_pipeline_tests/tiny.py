"""Pipelines of the real classes and of no size, one a family: built from a seed in a second, for tests."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

PICTURE_PX = 64
FACTOR_PX = 8
LATENT_CHANNELS = 4
TEXT_WIDTH = 32
MAX_TOKENS = 24
FLOW = "FlowMatchEulerDiscreteScheduler"


def build(folder: Path, seed: int = 0, prediction_type: str = "epsilon", like_sd15: bool = False) -> Path:
    """Write a random-weight pipeline as a diffusers folder (float32) and give the folder back.

    `like_sd15`: with the blocks of Stable Diffusion 1.5 itself, for what goes by their names.
    """
    import torch
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet: Any = UNet2DConditionModel(
            sample_size=PICTURE_PX // FACTOR_PX,
            in_channels=LATENT_CHANNELS,
            out_channels=LATENT_CHANNELS,
            down_block_types=(*("CrossAttnDownBlock2D",) * (3 if like_sd15 else 1), "DownBlock2D"),
            up_block_types=("UpBlock2D", *("CrossAttnUpBlock2D",) * (3 if like_sd15 else 1)),
            block_out_channels=(32, 64, 64, 64) if like_sd15 else (32, 64),
            layers_per_block=2 if like_sd15 else 1,
            attention_head_dim=4,
            norm_num_groups=8,
            cross_attention_dim=TEXT_WIDTH,
        )
        vae = _vae(like_sd15=like_sd15)
        text_encoder, tokenizer = _texts()
    unet.save_pretrained(folder / "unet")
    vae.save_pretrained(folder / "vae")
    text_encoder.save_pretrained(folder / "text_encoder")
    tokenizer.save_pretrained(folder / "tokenizer")
    _diffusion(folder, prediction_type)
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.35.0",
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def build_sdxl(folder: Path, seed: int = 0, prediction_type: str = "epsilon", like_sdxl: bool = False) -> Path:
    """As `build`, of StableDiffusionXLPipeline.

    `like_sdxl`: with the blocks of SDXL itself, for what goes by their numbers.
    """
    import torch
    from diffusers import UNet2DConditionModel

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet = UNet2DConditionModel(
            sample_size=PICTURE_PX // FACTOR_PX,
            in_channels=LATENT_CHANNELS,
            out_channels=LATENT_CHANNELS,
            down_block_types=("DownBlock2D", *("CrossAttnDownBlock2D",) * (2 if like_sdxl else 1)),
            up_block_types=(*("CrossAttnUpBlock2D",) * (2 if like_sdxl else 1), "UpBlock2D"),
            block_out_channels=(32, 64, 64) if like_sdxl else (32, 64),
            layers_per_block=2 if like_sdxl else 1,
            attention_head_dim=(2, 4, 4) if like_sdxl else (2, 4),
            transformer_layers_per_block=(1, 2, 3) if like_sdxl else (1, 2),
            use_linear_projection=True,
            norm_num_groups=8,
            cross_attention_dim=2 * TEXT_WIDTH,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=TEXT_WIDTH + 6 * 8,
        )
        parts = {"unet": unet, "vae": _vae(), **_clips(projected=(False, True))}
    _diffusion(folder, prediction_type)
    return _write(folder, "StableDiffusionXLPipeline", parts, "DDIMScheduler", force_zeros_for_empty_prompt=True)


def build_flux(folder: Path, seed: int = 0, single_blocks: int = 1) -> Path:
    """As `build`, of FluxPipeline."""
    import torch
    from diffusers import FluxTransformer2DModel

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        transformer = FluxTransformer2DModel(
            in_channels=4 * 16,
            num_layers=1,
            num_single_layers=single_blocks,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=TEXT_WIDTH,
            pooled_projection_dim=TEXT_WIDTH,
            axes_dims_rope=(4, 4, 8),
            guidance_embeds=True,
        )
        vae = _vae(16, scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False)
        t5, words = _t5(TEXT_WIDTH)
        clips = _clips(projected=(False,))
        parts = {"transformer": transformer, "vae": vae, **clips, "text_encoder_2": t5, "tokenizer_2": words}
    _flow(folder, use_dynamic_shifting=True, shift=3.0, base_shift=0.5, max_shift=1.15)
    return _write(folder, "FluxPipeline", parts, FLOW)


def build_sd35(folder: Path, seed: int = 0) -> Path:
    """As `build`, of StableDiffusion3Pipeline."""
    import torch
    from diffusers import SD3Transformer2DModel

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        transformer = SD3Transformer2DModel(
            sample_size=PICTURE_PX // FACTOR_PX,
            patch_size=2,
            in_channels=16,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=2 * TEXT_WIDTH,
            caption_projection_dim=32,
            pooled_projection_dim=2 * TEXT_WIDTH,
            out_channels=16,
            pos_embed_max_size=16,
            dual_attention_layers=(0,),
            qk_norm="rms_norm",
        )
        vae = _vae(16, scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False)
        t5, words = _t5(2 * TEXT_WIDTH)
        clips = _clips(projected=(True, True))
        parts = {"transformer": transformer, "vae": vae, **clips, "text_encoder_3": t5, "tokenizer_3": words}
    _flow(folder, shift=3.0)
    return _write(folder, "StableDiffusion3Pipeline", parts, FLOW)


def build_flux2_klein(folder: Path, seed: int = 0) -> Path:
    """As `build`, of Flux2KleinPipeline."""
    import torch
    from diffusers import AutoencoderKLFlux2, Flux2Transformer2DModel

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        transformer = Flux2Transformer2DModel(
            in_channels=4 * 8,
            num_layers=1,
            num_single_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=3 * 16,
            timestep_guidance_channels=32,
            axes_dims_rope=(4, 4, 4, 4),
            guidance_embeds=False,
        )
        vae: Any = AutoencoderKLFlux2(
            block_out_channels=(8, 8, 16, 16),
            layers_per_block=1,
            latent_channels=8,
            norm_num_groups=4,
            sample_size=PICTURE_PX,
            mid_block_add_attention=False,
        )
        vae.bn.running_mean.normal_(std=0.1)
        vae.bn.running_var.uniform_(0.01, 0.1)
        qwen, words = _qwen3(layers=28)  # the pipeline reads layers 9, 18 and 27
        parts = {"transformer": transformer, "vae": vae, "text_encoder": qwen, "tokenizer": words}
    _flow(folder, use_dynamic_shifting=True, shift=3.0)
    return _write(folder, "Flux2KleinPipeline", parts, FLOW, is_distilled=False)


def build_z_image(folder: Path, seed: int = 0) -> Path:
    """As `build`, of ZImagePipeline."""
    import torch
    from diffusers import ZImageTransformer2DModel

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        transformer = ZImageTransformer2DModel(
            in_channels=16,
            dim=32,
            n_layers=2,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            cap_feat_dim=16,
            axes_dims=[4, 6, 6],
            axes_lens=[1024, 64, 64],
        )
        vae = _vae(16, scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False)
        qwen, words = _qwen3(layers=3)
        parts = {"transformer": transformer, "vae": vae, "text_encoder": qwen, "tokenizer": words}
    _flow(folder, shift=3.0)
    return _write(folder, "ZImagePipeline", parts, FLOW)


def build_qwen_image(folder: Path, seed: int = 0) -> Path:
    """As `build`, of QwenImagePipeline."""
    import torch
    from diffusers import AutoencoderKLQwenImage, QwenImageTransformer2DModel
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    words = _qwen_words()
    texts = {
        "vocab_size": len(words),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e6},
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    sight = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        transformer = QwenImageTransformer2DModel(
            in_channels=4 * 16,
            out_channels=16,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=16,
            axes_dims_rope=(4, 6, 6),
        )
        vae = AutoencoderKLQwenImage(base_dim=8, dim_mult=[1, 1, 2, 2], num_res_blocks=1)
        config = Qwen2_5_VLConfig(text_config=texts, vision_config=sight, image_token_id=0, video_token_id=0)
        qwen = Qwen2_5_VLForConditionalGeneration(config)
        parts = {"transformer": transformer, "vae": vae, "text_encoder": qwen, "tokenizer": words}
    _flow(folder, use_dynamic_shifting=True, shift=1.0, base_shift=0.5, max_shift=0.9)
    return _write(folder, "QwenImagePipeline", parts, FLOW)


def _flow(folder: Path, **config: Any) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    FlowMatchEulerDiscreteScheduler(**config).save_pretrained(folder / "scheduler")


def _t5(width: int) -> tuple[Any, Any]:
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    letters = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    letters += [(letter, -3.0) for letter in "abcdefghijklmnopqrstuvwxyz,."]
    tokenizer = T5Tokenizer(vocab=letters, extra_ids=0, model_max_length=512)
    config = T5Config(
        vocab_size=len(tokenizer), d_model=width, d_kv=8, d_ff=2 * width, num_layers=2, num_heads=4, dropout_rate=0.0
    )
    return T5EncoderModel(config), tokenizer


CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _qwen_words() -> Any:
    from tokenizers import pre_tokenizers
    from transformers import Qwen2Tokenizer

    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary = {name: number for number, name in enumerate(names)}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=[], model_max_length=4096)
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
    tokenizer.chat_template = CHAT
    return tokenizer


def _qwen3(layers: int) -> tuple[Any, Any]:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer = _qwen_words()
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        initializer_range=0.2,
    )
    return Qwen3ForCausalLM(config), tokenizer


def _write(folder: Path, pipeline: str, parts: dict[str, Any], scheduler: str, **more: Any) -> Path:
    """A diffusers folder of these parts, the scheduler's folder being there."""
    index: dict[str, Any] = {"_class_name": pipeline, "_diffusers_version": "0.35.0", **more}
    index["scheduler"] = ["diffusers", scheduler]
    for name, part in parts.items():
        part.save_pretrained(folder / name)
        index[name] = [type(part).__module__.split(".")[0], type(part).__name__]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def _diffusion(folder: Path, prediction_type: str) -> None:
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        steps_offset=1,
        prediction_type=prediction_type,
    ).save_pretrained(folder / "scheduler")


def _vae(channels: int = LATENT_CHANNELS, like_sd15: bool = False, **more: Any) -> Any:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 16, 16),
        layers_per_block=2 if like_sd15 else 1,
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=PICTURE_PX,
        mid_block_add_attention=like_sd15,
        **more,
    )


def _clips(projected: tuple[bool, ...]) -> dict[str, Any]:
    """CLIP text encoders with their tokenizers, by the names of their folders; with or without a projection."""
    from transformers import CLIPTextModelWithProjection

    parts: dict[str, Any] = {}
    for number, with_projection in enumerate(projected, start=1):
        end = "" if number == 1 else f"_{number}"
        encoder, parts[f"tokenizer{end}"] = _texts()
        parts[f"text_encoder{end}"] = CLIPTextModelWithProjection(encoder.config) if with_projection else encoder
    return parts


def _texts() -> tuple[Any, Any]:
    from tokenizers import pre_tokenizers
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {name: number for number, name in enumerate(names)}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=MAX_TOKENS)
    config = CLIPTextConfig(
        vocab_size=len(names),
        hidden_size=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=vocabulary["<|startoftext|>"],
        eos_token_id=vocabulary["<|endoftext|>"],
        pad_token_id=vocabulary["<|endoftext|>"],
        projection_dim=TEXT_WIDTH,
    )
    return CLIPTextModel(config), tokenizer


BUILD: dict[str, Callable[..., Path]] = {  # a function of folder and seed for each family
    "sd15": build,
    "sdxl": build_sdxl,
    "flux": build_flux,
    "sd35": build_sd35,
    "flux2_klein": build_flux2_klein,
    "z_image": build_z_image,
    "qwen_image": build_qwen_image,
}
