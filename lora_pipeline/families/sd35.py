"""Stable Diffusion 3 and 3.5: AutoencoderKL of 16 channels, two CLIPs and T5, a flow transformer, as in StableDiffusion3Pipeline.

Esser et al. 2024, "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis". Shapes: see `protocol.py`.
"""

from typing import TYPE_CHECKING, Any

from lora_pipeline.families.kohya import TWO_CLIPS, Naming, Place, fused, of_clip, placed, same
from lora_pipeline.families.protocol import Conditioning, NoiseSchedule, TextEncoder
from lora_pipeline.families.stock import CLIP_TARGETS, FLOW_STEPS, StockFamily, StockTexts, flow_time, tokens_of
from lora_pipeline.settings import BaseSettings

if TYPE_CHECKING:
    from torch import Tensor

_MAX_TOKENS = 256  # that StableDiffusion3Pipeline hands to T5


# sd-scripts (networks/lora_sd3.py) trains on Stability AI's own transformer. diffusers reads no such LoRA, but whole models of these
# names: convert_sd3_transformer_checkpoint_to_diffusers. Its norms are left out, since the last one's halves are the other way round.
_TABLE = {
    **fused("joint_blocks_*_x_block_attn_qkv", "transformer_blocks.*.attn", ("to_q", "to_k", "to_v")),
    **fused("joint_blocks_*_x_block_attn2_qkv", "transformer_blocks.*.attn2", ("to_q", "to_k", "to_v")),
    **fused(
        "joint_blocks_*_context_block_attn_qkv",
        "transformer_blocks.*.attn",
        ("add_q_proj", "add_k_proj", "add_v_proj"),
    ),
    **same(
        {
            "transformer_blocks.*.attn.to_out.0": "joint_blocks_*_x_block_attn_proj",
            "transformer_blocks.*.attn2.to_out.0": "joint_blocks_*_x_block_attn2_proj",
            "transformer_blocks.*.attn.to_add_out": "joint_blocks_*_context_block_attn_proj",
            "transformer_blocks.*.ff.net.0.proj": "joint_blocks_*_x_block_mlp_fc1",
            "transformer_blocks.*.ff.net.2": "joint_blocks_*_x_block_mlp_fc2",
            "transformer_blocks.*.ff_context.net.0.proj": "joint_blocks_*_context_block_mlp_fc1",
            "transformer_blocks.*.ff_context.net.2": "joint_blocks_*_context_block_mlp_fc2",
        }
    ),
}


def _place(module: str) -> Place | None:
    return placed(module, _TABLE) or of_clip(module, TWO_CLIPS)


class StableDiffusion35(StockFamily):
    """The family `sd35`; see `Family` for what each method promises."""

    name = "sd35"
    architecture = "stable-diffusion-v3.5-large"
    naming = Naming("5-large", "networks.lora_sd3", "https://github.com/Stability-AI/sd3.5", _place)
    # What diffusers' train_dreambooth_lora_sd3.py trains by default.
    lora_targets = (
        "attn.to_q",
        "attn.to_k",
        "attn.to_v",
        "attn.to_out.0",
        "attn.add_q_proj",
        "attn.add_k_proj",
        "attn.add_v_proj",
        "attn.to_add_out",
    )
    text_targets = CLIP_TARGETS
    trained_texts = ("text_encoder", "text_encoder_2")  # the CLIPs; what T5 says of a caption comes from the cache
    pipeline_class = "StableDiffusion3Pipeline"
    denoiser_class = "SD3Transformer2DModel"
    text_folders = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "text_encoder_3", "tokenizer_3")
    patch = 2

    def open_texts(self, base: BaseSettings, device: str, dtype: str) -> TextEncoder:
        """See `Family.open_texts`."""
        parts = self.open_text_parts(base, device, dtype)

        def told(text: str) -> Conditioning:
            states, _, pooled, _ = parts.encode_prompt(
                text, None, None, device=device, do_classifier_free_guidance=False, max_sequence_length=_MAX_TOKENS
            )
            return {"encoder_hidden_states": states, "pooled_projections": pooled}

        return StockTexts(told, parts.tokenizer_3, _MAX_TOKENS)

    def open_trained_texts(self, base: BaseSettings) -> TextEncoder:
        """See `Family.open_trained_texts`. The CLIPs alone: T5, of 4.8 billion numbers, stays where it is."""
        parts = self.open_text_parts(base, "cpu", "float32", without=("text_encoder_3", "tokenizer_3"))
        encoders = {name: getattr(parts, name) for name in self.trained_texts}
        tokenizers = parts.tokenizer, parts.tokenizer_2

        def told(text: str | list[str]) -> Conditioning:
            # as StableDiffusion3Pipeline does
            import torch

            states: list[Tensor] = []
            pooled: list[Tensor] = []
            for tokenizer, clip in zip(tokenizers, encoders.values(), strict=True):
                tokens = tokens_of(text, tokenizer).input_ids
                said = clip(tokens.to(clip.device), output_hidden_states=True)
                states.append(said.hidden_states[-2])
                pooled.append(said.text_embeds)
            return {"clip_hidden_states": torch.cat(states, -1), "pooled_projections": torch.cat(pooled, -1)}

        return StockTexts(told, parts.tokenizer, parts.tokenizer.model_max_length, encoders=encoders, partial=True)

    def noise(self, base: BaseSettings) -> NoiseSchedule:
        """See `Family.noise`."""
        return self.flow_schedule(base)

    def predict(self, module: Any, noisy: "Tensor", timesteps: "Tensor", conditioning: Conditioning) -> "Tensor":
        """See `Family.predict`.

        The conditioning is `encoder_hidden_states` (B×333×4096: of the CLIPs together, then of T5), `pooled_projections` (B×2048), and, where
        the CLIPs are trained, `clip_hidden_states` (B×77×2048), which is what they say now.
        """
        states = conditioning["encoder_hidden_states"]
        if (clip := conditioning.get("clip_hidden_states")) is not None:
            import torch

            wide = torch.nn.functional.pad(clip, (0, states.shape[-1] - clip.shape[-1]))
            states = torch.cat((wide.to(states.dtype), states[:, clip.shape[1] :]), dim=1)
        return module(
            hidden_states=noisy,
            timestep=flow_time(timesteps) * FLOW_STEPS,
            encoder_hidden_states=states,
            pooled_projections=conditioning["pooled_projections"],
            return_dict=False,
        )[0]
