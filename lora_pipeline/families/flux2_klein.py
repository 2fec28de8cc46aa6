"""FLUX.2 klein: an autoencoder of 128 channels and 16 px cells, Qwen 3, a flow transformer, as in diffusers' Flux2KleinPipeline.

Black Forest Labs 2025, FLUX.2. The undistilled "base" weights are those to train on. Shapes: see `protocol.py`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lora_pipeline.families.kohya import Naming, Place, fused, placed, same
from lora_pipeline.families.protocol import Conditioning, NoiseSchedule, TextEncoder
from lora_pipeline.families.stock import StockFamily, StockTexts, flow_time
from lora_pipeline.settings import BaseSettings

if TYPE_CHECKING:
    from torch import Tensor

_MAX_TOKENS = 512  # that Flux2KleinPipeline hands to Qwen, the chat's frame included
_SINGLE_BLOCKS = 24  # of the larger klein, 9B; the smaller has fewer


# Black Forest Labs' own names; read backwards from diffusers' _convert_kohya_flux2_lora_to_diffusers.
_TABLE = {
    **fused("double_blocks_*_img_attn_qkv", "transformer_blocks.*.attn", ("to_q", "to_k", "to_v")),
    **fused("double_blocks_*_txt_attn_qkv", "transformer_blocks.*.attn", ("add_q_proj", "add_k_proj", "add_v_proj")),
    **same(
        {
            "transformer_blocks.*.attn.to_out.0": "double_blocks_*_img_attn_proj",
            "transformer_blocks.*.attn.to_add_out": "double_blocks_*_txt_attn_proj",
            "transformer_blocks.*.ff.linear_in": "double_blocks_*_img_mlp_0",
            "transformer_blocks.*.ff.linear_out": "double_blocks_*_img_mlp_2",
            "transformer_blocks.*.ff_context.linear_in": "double_blocks_*_txt_mlp_0",
            "transformer_blocks.*.ff_context.linear_out": "double_blocks_*_txt_mlp_2",
            "single_transformer_blocks.*.attn.to_qkv_mlp_proj": "single_blocks_*_linear1",
            "single_transformer_blocks.*.attn.to_out": "single_blocks_*_linear2",
        }
    ),
}


def _place(module: str) -> Place | None:
    return placed(module, _TABLE)


class Flux2Klein(StockFamily):
    """The family `flux2_klein`; see `Family` for what each method promises."""

    name = "flux2_klein"
    architecture = "Flux.2-klein"
    naming = Naming("flux_2_klein", "networks.lora_flux_2", "https://github.com/black-forest-labs/flux2", _place)
    # What diffusers' train_dreambooth_lora_flux2_klein.py trains by default. A single-stream block's to_out is one layer, a
    # double-stream block's a list of which the first is: hence their names in full.
    lora_targets = (
        "to_q",
        "to_k",
        "to_v",
        "to_out.0",
        "to_qkv_mlp_proj",
        *(f"single_transformer_blocks.{number}.attn.to_out" for number in range(_SINGLE_BLOCKS)),
    )
    pipeline_class = "Flux2KleinPipeline"
    denoiser_class = "Flux2Transformer2DModel"
    vae_class = "AutoencoderKLFlux2"
    cells = 4

    def factor_px(self, vae: Any) -> int:
        """See `StockFamily.factor_px`; 2 × 2 cells of the autoencoder are one here, as the transformer has them."""
        return super().factor_px(vae) * 2

    def latents_of(self, vae: Any, pictures: "Tensor") -> "Tensor":
        """See `StockFamily.latents_of`; scaled by the running mean and variance that the autoencoder has learnt of each channel."""
        cells = vae.encode(pictures).latent_dist.mode().float()
        batch, channels, height, width = cells.shape
        cells = cells.reshape(batch, channels, height // 2, 2, width // 2, 2).permute(0, 1, 3, 5, 2, 4)
        latents = cells.reshape(batch, channels * 4, height // 2, width // 2)
        mean, variance = (one.float().view(1, -1, 1, 1) for one in (vae.bn.running_mean, vae.bn.running_var))
        return (latents - mean) / (variance + vae.config.batch_norm_eps).sqrt()

    def open_texts(self, base: BaseSettings, device: str, dtype: str) -> TextEncoder:
        """See `Family.open_texts`."""
        parts = self.open_text_parts(base, device, dtype)

        def told(text: str) -> Conditioning:
            states, _ = parts.encode_prompt(text, device=device, max_sequence_length=_MAX_TOKENS)
            return {"encoder_hidden_states": states}

        def worded(text: str) -> str:
            chat = [{"role": "user", "content": text}]
            return parts.tokenizer.apply_chat_template(
                chat, tokenize=False, add_generation_prompt=True, enable_thinking=False
            )

        return StockTexts(told, parts.tokenizer, _MAX_TOKENS, worded)

    def noise(self, base: BaseSettings) -> NoiseSchedule:
        """See `Family.noise`."""
        return self.flow_schedule(base)

    def predict(self, module: Any, noisy: "Tensor", timesteps: "Tensor", conditioning: Conditioning) -> "Tensor":
        """See `Family.predict`. The conditioning is `encoder_hidden_states` (B×512×D), of three of Qwen's layers."""
        states = conditioning["encoder_hidden_states"]
        rows = module(
            hidden_states=noisy.flatten(2).transpose(1, 2),
            timestep=flow_time(timesteps),
            guidance=None,
            encoder_hidden_states=states,
            txt_ids=_places(len(states), 1, 1, states.shape[1], states.device),
            img_ids=_places(len(noisy), noisy.shape[2], noisy.shape[3], 1, noisy.device),
            return_dict=False,
        )[0]
        return rows.transpose(1, 2).reshape(noisy.shape)

    def guided(self, scale: float, negative: Sequence[str]) -> dict[str, Any]:  # noqa: ARG002
        """See `Family.guided`. This pipeline draws away from the empty prompt, and takes no other."""
        return {"guidance_scale": scale}


def _places(batch: int, height: int, width: int, words: int, device: Any) -> "Tensor":
    """Where each token stands, B × (h · w · words) × 4: time (0), row, column, word."""
    import torch

    axes = (torch.arange(many, device=device) for many in (1, height, width, words))
    return torch.cartesian_prod(*axes).expand(batch, -1, -1)
