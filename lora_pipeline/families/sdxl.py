"""Stable Diffusion XL: AutoencoderKL, two CLIP text encoders, U-Net, as in diffusers' StableDiffusionXLPipeline.

Podell et al. 2023, "SDXL: Improving Latent Diffusion Models for High-Resolution Image Synthesis". Shapes: see `protocol.py`.
"""

import re
from typing import TYPE_CHECKING, Any, Literal

from lora_pipeline.families.kohya import TWO_CLIPS, UNET, Naming, Place, flat, of_clip
from lora_pipeline.families.protocol import Conditioning, NoiseSchedule, TextEncoder
from lora_pipeline.families.stock import CLIP_TARGETS, UNET_CONV_TARGETS, StockFamily, StockTexts
from lora_pipeline.settings import BaseSettings

if TYPE_CHECKING:
    from torch import Tensor

_FACTOR_PX = 8  # of every autoencoder that SDXL's U-Net was trained with


# sd-scripts trains SDXL on Stability AI's own U-Net (generative-models' sgm), in which the halves are plain lists of layers: a block's
# resnets, of which there are two on the way down and three up, each with what follows it, then what changes the size.
_HALVES = {"down_blocks": "input_blocks", "up_blocks": "output_blocks"}
_LAYERS = {"resnets": 0, "attentions": 1}
_RESNET = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_ENDS = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_BLOCK = re.compile(r"(down_blocks|up_blocks)\.(\d)\.(resnets|attentions|downsamplers|upsamplers)\.(\d)\.(.+)")
_MIDDLE = re.compile(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)")


def _place(module: str) -> Place | None:
    name = module.removeprefix("unet.")
    if name == module:
        return of_clip(module, TWO_CLIPS)
    if name in _ENDS:
        return flat(UNET, _ENDS[name])
    if found := _BLOCK.fullmatch(name):
        half, block, kind, layer, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
        if kind == "downsamplers":
            return flat(UNET, f"input_blocks.{3 * (block + 1)}.0.op")
        if kind == "upsamplers":
            return flat(UNET, f"output_blocks.{3 * block + 2}.2.{rest}")
        number = 3 * block + layer + (half == "down_blocks")  # the first of input_blocks is conv_in
        return flat(UNET, f"{_HALVES[half]}.{number}.{_LAYERS[kind]}.{_RESNET.get(rest, rest)}")
    if found := _MIDDLE.fullmatch(name):
        return flat(UNET, f"middle_block.{_LAYERS[found[1]] + 2 * int(found[2])}.{_RESNET.get(found[3], found[3])}")
    return None


class StableDiffusionXL(StockFamily):
    """The family `sdxl`; see `Family` for what each method promises."""

    name = "sdxl"
    architecture = "stable-diffusion-xl-v1-base"
    naming = Naming("sdxl_base_v1-0", "networks.lora", "https://github.com/Stability-AI/generative-models", _place)
    # What kohya-ss/sd-scripts trains by default: every linear layer and 1×1 convolution of the U-Net's transformers.
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out")
    conv_targets = UNET_CONV_TARGETS
    text_targets = CLIP_TARGETS
    trained_texts = ("text_encoder", "text_encoder_2")
    half: Literal["float16", "bfloat16"] = "float16"
    pipeline_class = "StableDiffusionXLPipeline"
    denoiser_class = "UNet2DConditionModel"
    denoiser_folder = "unet"
    text_folders = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    single_file = True

    def open_texts(self, base: BaseSettings, device: str, dtype: str) -> TextEncoder:
        """See `Family.open_texts`."""
        parts = self.open_text_parts(base, device, dtype)
        encoders = {name: getattr(parts, name) for name in self.trained_texts}

        def told(text: str | list[str]) -> Conditioning:
            # An empty text is encoded as such, as sd-scripts and diffusers' training do; the pipeline, when it draws away from
            # nothing at all, puts zeros in its place (force_zeros_for_empty_prompt).
            where = parts.text_encoder_2.device  # encoders that are trained were moved since
            states, _, pooled, _ = parts.encode_prompt(text, device=where, do_classifier_free_guidance=False)
            return {"encoder_hidden_states": states, "text_embeds": pooled}

        return StockTexts(told, parts.tokenizer_2, parts.tokenizer_2.model_max_length, encoders=encoders)

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
