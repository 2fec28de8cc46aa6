"""FLUX.1 (dev): AutoencoderKL of 16 channels, CLIP and T5, a flow transformer, as in diffusers' FluxPipeline.

Black Forest Labs 2024, FLUX.1; Esser et al. 2024, "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis".
Shapes: see `protocol.py`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lora_pipeline.families.kohya import QKV, Naming, Place, fused, of_clip, placed, same
from lora_pipeline.families.protocol import Conditioning, NoiseSchedule, TextEncoder
from lora_pipeline.families.stock import CLIP_TARGETS, StockFamily, StockTexts, flow_time, packed, tokens_of, unpacked
from lora_pipeline.settings import BaseSettings

if TYPE_CHECKING:
    from torch import Tensor

_MAX_TOKENS = 512  # that FluxPipeline hands to T5
# FLUX.1-dev was distilled from guided answers and is told how strong the guidance shall be. diffusers' and ai-toolkit's training
# ask for 1, so that the flow to be learnt, which knows no guidance, is the one asked for.
_GUIDANCE = 1.0


# sd-scripts trains on Black Forest Labs' own transformer; read backwards from diffusers' _convert_kohya_flux_lora_to_diffusers.
# linear1 of a single-stream block holds the first layer of its feed-forward too, four times as wide as the width.
_TABLE = {
    **fused("double_blocks_*_img_attn_qkv", "transformer_blocks.*.attn", ("to_q", "to_k", "to_v")),
    **fused("double_blocks_*_txt_attn_qkv", "transformer_blocks.*.attn", ("add_q_proj", "add_k_proj", "add_v_proj")),
    **fused(
        "single_blocks_*_linear1",
        "single_transformer_blocks.*",
        ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
        (*QKV, 4),
    ),
    **same(
        {
            "transformer_blocks.*.attn.to_out.0": "double_blocks_*_img_attn_proj",
            "transformer_blocks.*.attn.to_add_out": "double_blocks_*_txt_attn_proj",
            "transformer_blocks.*.ff.net.0.proj": "double_blocks_*_img_mlp_0",
            "transformer_blocks.*.ff.net.2": "double_blocks_*_img_mlp_2",
            "transformer_blocks.*.ff_context.net.0.proj": "double_blocks_*_txt_mlp_0",
            "transformer_blocks.*.ff_context.net.2": "double_blocks_*_txt_mlp_2",
            "transformer_blocks.*.norm1.linear": "double_blocks_*_img_mod_lin",
            "transformer_blocks.*.norm1_context.linear": "double_blocks_*_txt_mod_lin",
            "single_transformer_blocks.*.proj_out": "single_blocks_*_linear2",
            "single_transformer_blocks.*.norm.linear": "single_blocks_*_modulation_lin",
        }
    ),
}


def _place(module: str) -> Place | None:
    return placed(module, _TABLE) or of_clip(module, {"text_encoder": "lora_te1_"})


class Flux(StockFamily):
    """The family `flux`; see `Family` for what each method promises."""

    name = "flux"
    architecture = "flux-1-dev"
    naming = Naming("flux1", "networks.lora_flux", "https://github.com/black-forest-labs/flux", _place)
    # What diffusers' train_dreambooth_lora_flux.py trains by default; the attention of the single-stream blocks is among it.
    lora_targets = (
        "attn.to_q",
        "attn.to_k",
        "attn.to_v",
        "attn.to_out.0",
        "attn.add_q_proj",
        "attn.add_k_proj",
        "attn.add_v_proj",
        "attn.to_add_out",
        "ff.net.0.proj",
        "ff.net.2",
        "ff_context.net.0.proj",
        "ff_context.net.2",
    )
    text_targets = CLIP_TARGETS
    trained_texts = ("text_encoder",)  # CLIP; what T5 says of a caption comes from the cache, as in sd-scripts
    pipeline_class = "FluxPipeline"
    denoiser_class = "FluxTransformer2DModel"
    text_folders = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    patch = 2
    cells = 4

    def open_texts(self, base: BaseSettings, device: str, dtype: str) -> TextEncoder:
        """See `Family.open_texts`."""
        parts = self.open_text_parts(base, device, dtype)

        def told(text: str) -> Conditioning:
            states, pooled, _ = parts.encode_prompt(text, device=device, max_sequence_length=_MAX_TOKENS)
            return {"encoder_hidden_states": states, "pooled_projections": pooled}

        return StockTexts(told, parts.tokenizer_2, _MAX_TOKENS)

    def open_trained_texts(self, base: BaseSettings) -> TextEncoder:
        """See `Family.open_trained_texts`. CLIP alone: T5, of 4.8 billion numbers, stays where it is."""
        parts = self.open_text_parts(base, "cpu", "float32", without=("text_encoder_2", "tokenizer_2"))
        clip = parts.text_encoder

        def told(text: str | list[str]) -> Conditioning:
            # as FluxPipeline does
            tokens = tokens_of(text, parts.tokenizer).input_ids
            return {"pooled_projections": clip(tokens.to(clip.device)).pooler_output}

        return StockTexts(
            told, parts.tokenizer, parts.tokenizer.model_max_length, encoders={"text_encoder": clip}, partial=True
        )

    def noise(self, base: BaseSettings) -> NoiseSchedule:
        """See `Family.noise`."""
        return self.flow_schedule(base)

    def predict(self, module: Any, noisy: "Tensor", timesteps: "Tensor", conditioning: Conditioning) -> "Tensor":
        """See `Family.predict`. The conditioning is `encoder_hidden_states` (B×512×4096, of T5) and `pooled_projections` (B×768, of CLIP)."""
        height, width = int(noisy.shape[-2]), int(noisy.shape[-1])
        states = conditioning["encoder_hidden_states"]
        guidance = noisy.new_full((len(noisy),), _GUIDANCE) if module.config.guidance_embeds else None
        rows = module(
            hidden_states=packed(noisy),
            timestep=flow_time(timesteps),
            guidance=guidance,
            pooled_projections=conditioning["pooled_projections"],
            encoder_hidden_states=states,
            txt_ids=states.new_zeros(states.shape[1], 3),
            img_ids=places(noisy),
            return_dict=False,
        )[0]
        return unpacked(rows, height, width)

    def guided(self, scale: float, negative: Sequence[str]) -> dict[str, Any]:  # noqa: ARG002
        """See `Family.guided`. What to draw away from is left out: this guidance is learnt, and knows no negative prompt."""
        return {"guidance_scale": scale}


def places(latents: "Tensor") -> "Tensor":
    """Where each row of `packed` latents (B×C×h×w) stands, (h/2 · w/2)×3: 0, row and column, counted in patches."""
    import torch

    rows, columns = (torch.arange(side // 2, device=latents.device, dtype=latents.dtype) for side in latents.shape[-2:])
    return torch.cartesian_prod(latents.new_zeros(1), rows, columns)
