"""Z-Image: FLUX.1's autoencoder, Qwen 3, a single-stream flow transformer, as in diffusers' ZImagePipeline.

Z-Image Team 2025, "Z-Image: An Efficient Image Generation Foundation Model with Single-Stream Diffusion Transformer".
Shapes: see `protocol.py`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lora_pipeline.families.kohya import Naming, Place, fused, placed, same
from lora_pipeline.families.protocol import Conditioning, NoiseSchedule, TextEncoder
from lora_pipeline.families.stock import StockFamily, StockTexts, flow_time, padded
from lora_pipeline.settings import BaseSettings

if TYPE_CHECKING:
    from torch import Tensor

_MAX_TOKENS = 512  # that ZImagePipeline hands to Qwen, the chat's frame included


# ComfyUI has q, k and v in one and loads no other names that begin with lora_unet; musubi-tuner, which keeps them apart, converts its
# LoRAs to these (networks/convert_z_image_lora_to_comfy.py).
_BLOCKS = ("layers", "noise_refiner", "context_refiner")
_ONE = {"attention.to_out.0": "attention_out", **{f"feed_forward.{w}": f"feed_forward_{w}" for w in ("w1", "w2", "w3")}}
_TABLE = {
    here: place
    for blocks in _BLOCKS
    for here, place in (
        *fused(f"{blocks}_*_attention_qkv", f"{blocks}.*.attention", ("to_q", "to_k", "to_v")).items(),
        *same({f"{blocks}.*.{here}": f"{blocks}_*_{there}" for here, there in _ONE.items()}).items(),
    )
}


def _place(module: str) -> Place | None:
    return placed(module, _TABLE)


class ZImage(StockFamily):
    """The family `z_image`; see `Family` for what each method promises."""

    name = "z_image"
    architecture = "Z-Image"
    naming = Naming("z_image", "networks.lora_zimage", "https://github.com/Tongyi-MAI/Z-Image", _place)
    # What diffusers' train_dreambooth_lora_z_image.py trains by default.
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0")
    pipeline_class = "ZImagePipeline"
    denoiser_class = "ZImageTransformer2DModel"
    patch = 2

    def open_texts(self, base: BaseSettings, device: str, dtype: str) -> TextEncoder:
        """See `Family.open_texts`."""
        parts = self.open_text_parts(base, device, dtype)

        def told(text: str) -> Conditioning:
            # [text]: the pipeline writes the chat's frame into the list that it is given.
            states, _ = parts.encode_prompt(
                [text], device=device, do_classifier_free_guidance=False, max_sequence_length=_MAX_TOKENS
            )
            return padded(states[0], _MAX_TOKENS)

        def worded(text: str) -> str:
            chat = [{"role": "user", "content": text}]
            return parts.tokenizer.apply_chat_template(
                chat, tokenize=False, add_generation_prompt=True, enable_thinking=True
            )

        return StockTexts(told, parts.tokenizer, _MAX_TOKENS, worded)

    def noise(self, base: BaseSettings) -> NoiseSchedule:
        """See `Family.noise`."""
        return self.flow_schedule(base)

    def predict(self, module: Any, noisy: "Tensor", timesteps: "Tensor", conditioning: Conditioning) -> "Tensor":
        """See `Family.predict`. The conditioning is `encoder_hidden_states` (B×512×2560) and `mask` (B×512).

        The transformer counts time the other way round, and answers with x_0 − ε.
        """
        import torch

        texts = [
            states[mask > 0]
            for states, mask in zip(conditioning["encoder_hidden_states"], conditioning["mask"], strict=True)
        ]
        frames = list(noisy.unsqueeze(2).unbind(0))  # each C×1×h×w
        answers = module(frames, 1 - flow_time(timesteps), texts, return_dict=False)[0]
        return -torch.stack(list(answers)).squeeze(2)

    def guided(self, scale: float, negative: Sequence[str]) -> dict[str, Any]:
        """See `Family.guided`. This pipeline adds its scale times the difference to the guided answer: 0 is none."""
        return {"guidance_scale": scale - 1, "negative_prompt": list(negative)}
