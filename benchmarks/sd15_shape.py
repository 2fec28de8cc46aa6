"""Stable Diffusion 1.5 in its full size, with random weights: a billion numbers, written as a diffusers folder (4.3 GB, float32).

How long a step takes hangs on the shape and not on what the numbers are. Shapes: the config.json files of
stable-diffusion-v1-5/stable-diffusion-v1-5.
"""

import json
from pathlib import Path
from typing import Any

DENOISER: dict[str, Any] = {"cross_attention_dim": 768, "sample_size": 64, "attention_head_dim": 8}


def build(folder: Path) -> Path:
    """Write the model and give its folder."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

    torch.manual_seed(0)
    tokenizer = _tokenizer()
    UNet2DConditionModel(**DENOISER).save_pretrained(folder / "unet")
    AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        sample_size=512,
    ).save_pretrained(folder / "vae")
    _write_text_encoder(folder / "text_encoder", tokenizer)
    _write_tokenizer(folder / "tokenizer", tokenizer)
    # sd-scripts looks for the tokenizer of Stable Diffusion under this name, see its --tokenizer_cache_dir
    _write_tokenizer(folder / "tokenizers" / "openai_clip-vit-large-patch14", tokenizer)
    DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
    ).save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.32.0",
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


def _write_text_encoder(folder: Path, tokenizer: Any) -> None:
    from safetensors.torch import save_file
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=768,
        intermediate_size=3072,
        projection_dim=768,
        num_hidden_layers=12,
        num_attention_heads=12,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        architectures=["CLIPTextModel"],
    )
    config.save_pretrained(folder)
    # transformers 5 writes other names than 4 reads; both read these, which are Stable Diffusion's
    weights = {f"text_model.{name}": one for name, one in CLIPTextModel(config).state_dict().items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def _write_tokenizer(folder: Path, tokenizer: Any) -> None:
    tokenizer.save_pretrained(folder)
    # transformers 4's own files
    (folder / "vocab.json").write_text(json.dumps(tokenizer.get_vocab()), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")


def _tokenizer() -> Any:
    """Letters alone: as many tokens as CLIP's tokenizer always gives (77), of fewer kinds."""
    from tokenizers import pre_tokenizers
    from transformers import CLIPTokenizer

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {name: number for number, name in enumerate(names)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)
