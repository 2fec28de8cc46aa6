"""Stable Diffusion XL: AutoencoderKL, two CLIP text encoders, U-Net, as in diffusers' StableDiffusionXLPipeline.

Podell et al. 2023, "SDXL: Improving Latent Diffusion Models for High-Resolution Image Synthesis". Shapes: see `protocol.py`.
"""

from typing import TYPE_CHECKING, Any, Literal

from lora_pipeline.families.protocol import Conditioning, NoiseSchedule, TextEncoder
from lora_pipeline.families.stock import UNET_CONV_TARGETS, StockFamily, StockTexts
from lora_pipeline.settings import BaseSettings

if TYPE_CHECKING:
    from torch import Tensor

_FACTOR_PX = 8  # of every autoencoder that SDXL's U-Net was trained with


class StableDiffusionXL(StockFamily):
    """The family `sdxl`; see `Family` for what each method promises."""

    name = "sdxl"
    architecture = "stable-diffusion-xl-v1-base"
    # What kohya-ss/sd-scripts trains by default: every linear layer and 1×1 convolution of the U-Net's transformers.
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out")
    conv_targets = UNET_CONV_TARGETS
    half: Literal["float16", "bfloat16"] = "float16"
    pipeline_class = "StableDiffusionXLPipeline"
    denoiser_class = "UNet2DConditionModel"
    denoiser_folder = "unet"
    text_folders = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    single_file = True

    def open_texts(self, base: BaseSettings, device: str, dtype: str) -> TextEncoder:
        """See `Family.open_texts`."""
        parts = self.open_text_parts(base, device, dtype)

        def told(text: str) -> Conditioning:
            # An empty text is encoded as such, as sd-scripts and diffusers' training do; the pipeline, when it draws away from
            # nothing at all, puts zeros in its place (force_zeros_for_empty_prompt).
            states, _, pooled, _ = parts.encode_prompt(text, device=device, do_classifier_free_guidance=False)
            return {"encoder_hidden_states": states, "text_embeds": pooled}

        return StockTexts(told, parts.tokenizer_2, parts.tokenizer_2.model_max_length)

    def noise(self, base: BaseSettings) -> NoiseSchedule:
        """See `Family.noise`."""
        return self.diffusion_schedule(base)

    def predict(self, module: Any, noisy: "Tensor", timesteps: "Tensor", conditioning: Conditioning) -> "Tensor":
        """See `Family.predict`.

        The conditioning is `encoder_hidden_states` (B×77×2048: the last layer but one of both encoders), `text_embeds` (B×1280:
        the second's pooled output), and `framing`, by which the model learns neither smallness nor cut-off heads from
        pictures that were enlarged or cut (section 2.2).
        """
        framing = conditioning.get("framing")
        if framing is None:
            height, width = noisy.shape[-2] * _FACTOR_PX, noisy.shape[-1] * _FACTOR_PX
            framing = noisy.new_tensor([height, width, 0, 0, height, width]).expand(len(noisy), 6)
        return module(
            noisy,
            timesteps,
            encoder_hidden_states=conditioning["encoder_hidden_states"],
            added_cond_kwargs={"text_embeds": conditioning["text_embeds"], "time_ids": framing},
            return_dict=False,
        )[0]
