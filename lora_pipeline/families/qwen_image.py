"""Qwen-Image: a video's autoencoder on one frame, Qwen 2.5 VL, a flow transformer, as in diffusers' QwenImagePipeline.

Wu et al. 2025, "Qwen-Image Technical Report". Shapes: see `protocol.py`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lora_pipeline.families.kohya import UNET, Naming, Place, flat
from lora_pipeline.families.protocol import Conditioning, NoiseSchedule, TextEncoder
from lora_pipeline.families.stock import StockFamily, StockTexts, flow_time, packed, padded, unpacked
from lora_pipeline.settings import BaseSettings

if TYPE_CHECKING:
    from torch import Tensor

_MAX_TOKENS = 512  # that QwenImagePipeline hands to the transformer


def _place(module: str) -> Place | None:
    # diffusers' code is the model's own, and musubi-tuner and ComfyUI have its names.
    name = module.removeprefix("transformer.")
    return None if name == module else flat(UNET, name)


class QwenImage(StockFamily):
    """The family `qwen_image`; see `Family` for what each method promises."""

    name = "qwen_image"
    architecture = "Qwen-Image"
    naming = Naming("qwen_image", "networks.lora_qwen_image", "https://github.com/QwenLM/Qwen-Image", _place)
    # What diffusers' train_dreambooth_lora_qwen_image.py trains by default.
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0")
    pipeline_class = "QwenImagePipeline"
    denoiser_class = "QwenImageTransformer2DModel"
    vae_class = "AutoencoderKLQwenImage"
    patch = 2
    cells = 4

    def factor_px(self, vae: Any) -> int:
        """See `StockFamily.factor_px`."""
        return 2 ** len(vae.temperal_downsample)

    def latents_of(self, vae: Any, pictures: "Tensor") -> "Tensor":
        """See `StockFamily.latents_of`; scaled channel by channel, by the mean and deviation in the autoencoder's configuration."""
        cells = vae.encode(pictures.unsqueeze(2)).latent_dist.mode().float().squeeze(2)
        mean, deviation = (
            cells.new_tensor(one).view(1, -1, 1, 1) for one in (vae.config.latents_mean, vae.config.latents_std)
        )
        return (cells - mean) / deviation

    def open_texts(self, base: BaseSettings, device: str, dtype: str) -> TextEncoder:
        """See `Family.open_texts`."""
        parts = self.open_text_parts(base, device, dtype)

        def told(text: str) -> Conditioning:
            states, _ = parts.encode_prompt(text, device=device, max_sequence_length=_MAX_TOKENS)
            return padded(states[0], _MAX_TOKENS)

        seen = _MAX_TOKENS + parts.prompt_template_encode_start_idx  # the pipeline cuts off the frame's beginning
        return StockTexts(told, parts.tokenizer, seen, parts.prompt_template_encode.format)

    def noise(self, base: BaseSettings) -> NoiseSchedule:
        """See `Family.noise`."""
        return self.flow_schedule(base)

    def predict(self, module: Any, noisy: "Tensor", timesteps: "Tensor", conditioning: Conditioning) -> "Tensor":
        """See `Family.predict`. The conditioning is `encoder_hidden_states` (B×512×3584) and `mask` (B×512)."""
        height, width = int(noisy.shape[-2]), int(noisy.shape[-1])
        mask = conditioning["mask"]
        longest = int(mask.sum(1).max())  # what all texts of the batch have as padding costs time and does nothing
        mask = mask[:, :longest]
        rows = module(
            hidden_states=packed(noisy),
            timestep=flow_time(timesteps),
            guidance=None,
            encoder_hidden_states=conditioning["encoder_hidden_states"][:, :longest],
            encoder_hidden_states_mask=None if bool(mask.all()) else mask,
            img_shapes=[[(1, height // 2, width // 2)]] * len(noisy),
            return_dict=False,
        )[0]
        return unpacked(rows, height, width)

    def guided(self, scale: float, negative: Sequence[str]) -> dict[str, Any]:
        """See `Family.guided`."""
        return {"true_cfg_scale": scale, **({"negative_prompt": list(negative)} if scale > 1 else {})}
