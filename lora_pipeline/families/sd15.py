"""Stable Diffusion 1.x (and 2.x's v-prediction): AutoencoderKL, CLIP text encoder, U-Net, as in diffusers' StableDiffusionPipeline.

Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models". Shapes: see `protocol.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from lora_pipeline.families.kohya import ONE_CLIP, UNET, Naming, Place, flat, of_clip
from lora_pipeline.families.protocol import Conditioning, NoiseSchedule, TextEncoder
from lora_pipeline.families.stock import CLIP_TARGETS, UNET_CONV_TARGETS, StockFamily, tokens_of
from lora_pipeline.settings import BaseSettings

if TYPE_CHECKING:
    from torch import Tensor


def _place(module: str) -> Place | None:
    # sd-scripts trains Stable Diffusion 1 and 2 on a U-Net with diffusers' own names.
    if module.startswith("unet."):
        return flat(UNET, module.removeprefix("unet."))
    return of_clip(module, ONE_CLIP)


class StableDiffusion15(StockFamily):
    """The family `sd15`; see `Family` for what each method promises."""

    name = "sd15"
    architecture = "stable-diffusion-v1"
    naming = Naming("sd_v1", "networks.lora", "diffusers", _place)
    # What kohya-ss/sd-scripts trains by default: every linear layer and 1×1 convolution of the U-Net's transformers.
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out")
    conv_targets = UNET_CONV_TARGETS
    text_targets = CLIP_TARGETS
    trained_texts = ("text_encoder",)
    clip_skips = True
    half: Literal["float16", "bfloat16"] = "float16"
    pipeline_class = "StableDiffusionPipeline"
    denoiser_class = "UNet2DConditionModel"
    denoiser_folder = "unet"
    single_file = True

    def open_texts(self, base: BaseSettings, device: str, dtype: str) -> TextEncoder:
        """See `Family.open_texts`."""
        parts = self.open_text_parts(base, device, dtype)
        return _ClipText(parts.tokenizer, parts.text_encoder)

    def noise(self, base: BaseSettings) -> NoiseSchedule:
        """See `Family.noise`."""
        return self.diffusion_schedule(base)

    def predict(self, module: Any, noisy: "Tensor", timesteps: "Tensor", conditioning: Conditioning) -> "Tensor":
        """See `Family.predict`. The conditioning is `encoder_hidden_states`, B×77×D."""
        return module(noisy, timesteps, encoder_hidden_states=conditioning["encoder_hidden_states"], return_dict=False)[
            0
        ]

    def open_pipeline(self, base: BaseSettings, given: Mapping[str, Any]) -> Any:
        """See `StockFamily.open_pipeline`; without a safety checker, and with no more of the text encoder than clip skip reads.

        sd-scripts (`SdTextEncodingStrategy`) and diffusers (whose `clip_skip` is one less) put a layer's answer through the last norm: it is
        what an encoder answers that ends with that layer. (diffusers 0.42's own `clip_skip` fails with transformers 5.)
        """
        unchecked = {"requires_safety_checker": False, "safety_checker": None, "feature_extractor": None}
        pipeline = super().open_pipeline(base, {**unchecked, **given})
        if "text_encoder" not in given:
            # transformers 5 keeps the parts of text_model in the encoder itself
            clip = getattr(pipeline.text_encoder, "text_model", pipeline.text_encoder)
            layers = clip.encoder.layers
            clip.encoder.layers = layers[: len(layers) + 1 - base.clip_skip]
        return pipeline


@dataclass(frozen=True)
class _ClipText:
    tokenizer: Any
    encoder: Any
    partial: bool = False

    @property
    def encoders(self) -> Mapping[str, Any]:
        return {"text_encoder": self.encoder}

    def encode(self, texts: Sequence[str]) -> list[Conditioning]:
        import torch

        with torch.no_grad():
            states = self.with_graph(texts)["encoder_hidden_states"]
        return [{"encoder_hidden_states": one.float().cpu()} for one in states]

    def with_graph(self, texts: Sequence[str]) -> Conditioning:
        tokens = tokens_of(list(texts), self.tokenizer)
        # As StableDiffusionPipeline does: padding is seen unless the encoder's config asks for the mask.
        mask = (
            tokens.attention_mask.to(self.encoder.device)
            if getattr(self.encoder.config, "use_attention_mask", False)
            else None
        )
        states = self.encoder(tokens.input_ids.to(self.encoder.device), attention_mask=mask)[0]
        return {"encoder_hidden_states": states}

    def cut_tokens(self, text: str) -> int:
        return max(
            0, len(self.tokenizer(text, truncation=False, verbose=False).input_ids) - self.tokenizer.model_max_length
        )
