"""Stable Diffusion 1.x (and 2.x's v-prediction): AutoencoderKL, CLIP text encoder, U-Net, as in diffusers' StableDiffusionPipeline.

Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models". Shapes: see `protocol.py`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_pipeline.errors import ModelError
from lora_pipeline.families.lora_file import write_lora
from lora_pipeline.families.protocol import Conditioning, NoiseSchedule, Part, PictureEncoder, TextEncoder
from lora_pipeline.families.reach import measured_reach_px
from lora_pipeline.families.weights import Weights, check_hub, commit_of, digest_of, read_json, weights_of
from lora_pipeline.settings import BaseSettings

if TYPE_CHECKING:
    from torch import Tensor

_FOLDERS: dict[Part, tuple[str, ...]] = {
    "whole": ("unet", "scheduler", "vae", "text_encoder", "tokenizer"),
    "pictures": ("vae",),
    "texts": ("text_encoder", "tokenizer"),
    "denoiser": ("unet", "scheduler"),
}
_PIPELINE = "StableDiffusionPipeline"


class StableDiffusion15:
    """The family `sd15`; see `Family` for what each method promises."""

    name = "sd15"
    architecture = "stable-diffusion-v1"
    # What kohya-ss/sd-scripts trains by default: every linear layer and 1×1 convolution of the U-Net's transformers.
    lora_targets = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out")

    def check(self, base: BaseSettings) -> None:
        """See `Family.check`."""
        model = weights_of(base.model, base.revision)
        if model.path is None:
            check_hub(model, ("model_index.json", "unet/config.json", "vae/config.json", "text_encoder/config.json"))
        elif not model.is_file:
            _check_folder(model, model.path)
        index = read_json(model, "model_index.json")
        if index is not None and index.get("_class_name") != _PIPELINE:
            raise ModelError(
                f"base model {base.model} is a {index.get('_class_name')}, and base.family {self.name} needs a {_PIPELINE}"
            )
        if base.vae:
            vae = weights_of(base.vae)
            if vae.path is None:
                check_hub(vae, ("config.json",))
        self._check_channels(base, model)

    def _check_channels(self, base: BaseSettings, model: Weights) -> None:
        unet = read_json(model, "unet/config.json")
        vae = read_json(weights_of(base.vae), "config.json") if base.vae else read_json(model, "vae/config.json")
        if unet is None or vae is None:  # in a single file, or not downloaded yet
            return
        wanted, given = unet.get("in_channels", 4), vae.get("latent_channels", 4)
        if wanted != given:
            why = (
                "an inpainting model cannot be trained here"
                if wanted == 2 * given + 1
                else "they do not belong together"
            )
            raise ModelError(
                f"base model {base.model}: its U-Net takes {wanted} latent channels, the autoencoder gives {given}: {why}"
            )

    def digest(self, base: BaseSettings, part: Part = "whole") -> str:
        """See `Family.digest`."""
        model = weights_of(base.model, base.revision)
        if not base.vae or part in {"texts", "denoiser"}:
            return digest_of(model, _FOLDERS[part])
        vae = digest_of(weights_of(base.vae), (".",))
        if part == "pictures":
            return vae
        return f"{digest_of(model, tuple(folder for folder in _FOLDERS[part] if folder != 'vae'))}+{vae}"

    def open_pictures(self, base: BaseSettings, device: str, dtype: str) -> PictureEncoder:
        """See `Family.open_pictures`."""
        return _Autoencoder.of(_to(self._open_vae(base), device, dtype), device)

    def open_texts(self, base: BaseSettings, device: str, dtype: str) -> TextEncoder:
        """See `Family.open_texts`."""
        parts = _open_pipeline(weights_of(base.model, base.revision), {"unet": None, "vae": None, "scheduler": None})
        return _ClipText(parts.tokenizer, _to(parts.text_encoder, device, dtype).requires_grad_(False).eval())

    def open_denoiser(self, base: BaseSettings, device: str, dtype: str) -> Any:
        """See `Family.open_denoiser`."""
        from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

        unet = _open_part(UNet2DConditionModel, weights_of(base.model, base.revision), "unet")
        return _to(unet, device, dtype).requires_grad_(False)

    def noise(self, base: BaseSettings) -> NoiseSchedule:
        """See `Family.noise`."""
        from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

        model = weights_of(base.model, base.revision)
        config = _open_pipeline(model, {}).scheduler.config if model.is_file else _scheduler_config(model)
        scheduler: Any = DDPMScheduler.from_config(config)
        kind = scheduler.config.prediction_type
        if kind not in {"epsilon", "v_prediction"}:
            raise ModelError(
                f"base model {base.model}: its scheduler's prediction_type is '{kind}'; trained here are epsilon and v_prediction"
            )
        kept = scheduler.alphas_cumprod.double()
        return NoiseSchedule(kind, tuple(kept.sqrt().tolist()), tuple((1 - kept).sqrt().tolist()))

    def predict(self, module: Any, noisy: "Tensor", timesteps: "Tensor", conditioning: Conditioning) -> "Tensor":
        """See `Family.predict`. The conditioning is `encoder_hidden_states`, B×77×D."""
        return module(noisy, timesteps, encoder_hidden_states=conditioning["encoder_hidden_states"], return_dict=False)[
            0
        ]

    def save_lora(self, module: Any, path: Path, metadata: Mapping[str, str]) -> None:
        """See `Family.save_lora`. Rank and alpha stand in diffusers' `lora_adapter_metadata`, from which it scales by alpha / rank."""
        from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
        from peft import get_peft_model_state_dict

        config = module.peft_config["default"]
        adapter = {
            "unet.r": config.r,
            "unet.lora_alpha": config.lora_alpha,
            "unet.target_modules": sorted(config.target_modules),
        }
        # Names as peft says them (…lora_A.weight). diffusers' own convert_state_dict_to_diffusers renames the attention's alone,
        # and its loader, which judges by the first name, then leaves all of the attention's out with no more than a warning.
        tensors = {f"unet.{name}": tensor.float() for name, tensor in get_peft_model_state_dict(module).items()}
        write_lora(
            path, tensors, {"format": "pt", **metadata, LORA_ADAPTER_METADATA_KEY: json.dumps(adapter, sort_keys=True)}
        )

    def pipeline(self, base: BaseSettings, device: str, dtype: str, module: Any = None) -> Any:
        """See `Family.pipeline`."""
        given: dict[str, Any] = {} if module is None else {"unet": module}
        if base.vae:
            given["vae"] = self._open_vae(base)
        pipeline = _open_pipeline(weights_of(base.model, base.revision), given)
        pipeline.set_progress_bar_config(disable=True)
        parts = (pipeline.vae, pipeline.text_encoder, *(() if module is not None else (pipeline.unet,)))
        for part in parts:  # a module in training keeps the dtypes it has
            _to(part, device, dtype)
        return pipeline

    def _open_vae(self, base: BaseSettings) -> Any:
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

        if base.vae:
            return _open_part(AutoencoderKL, weights_of(base.vae), "")
        return _open_part(AutoencoderKL, weights_of(base.model, base.revision), "vae")


@dataclass(frozen=True)
class _Autoencoder:
    vae: Any
    device: str
    factor_px: int
    reach_px: int

    @classmethod
    def of(cls, vae: Any, device: str) -> "_Autoencoder":
        from dataclasses import replace

        factor_px = 2 ** (len(vae.config.block_out_channels) - 1)
        opened = cls(vae.requires_grad_(False).eval(), device, factor_px, reach_px=0)
        return replace(opened, reach_px=measured_reach_px(opened.encode, factor_px))

    def encode(self, pictures: "Tensor") -> "Tensor":
        import torch

        with torch.no_grad():
            mean = self.vae.encode(pictures.to(self.device, self.vae.dtype)).latent_dist.mode()
        shift = self.vae.config.shift_factor or 0.0
        return ((mean.float() - shift) * self.vae.config.scaling_factor).cpu()


@dataclass(frozen=True)
class _ClipText:
    tokenizer: Any
    encoder: Any

    def encode(self, texts: Sequence[str]) -> list[Conditioning]:
        import torch

        length = self.tokenizer.model_max_length
        tokens = self.tokenizer(
            list(texts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        # As StableDiffusionPipeline does: padding is seen unless the encoder's config asks for the mask.
        mask = (
            tokens.attention_mask.to(self.encoder.device)
            if getattr(self.encoder.config, "use_attention_mask", False)
            else None
        )
        with torch.no_grad():
            states = self.encoder(tokens.input_ids.to(self.encoder.device), attention_mask=mask)[0]
        return [{"encoder_hidden_states": one.float().cpu()} for one in states]

    def cut_tokens(self, text: str) -> int:
        return max(
            0, len(self.tokenizer(text, truncation=False, verbose=False).input_ids) - self.tokenizer.model_max_length
        )


def _check_folder(model: Weights, folder: Path) -> None:
    wanted = (
        "model_index.json",
        "unet/*.safetensors",
        "vae/*.safetensors",
        "text_encoder/*.safetensors",
        "tokenizer/*",
        "scheduler/*.json",
    )
    missing = [name for name in (*wanted, "unet/config.json", "vae/config.json") if not any(folder.glob(name))]
    if missing:
        raise ModelError(
            f"base model {model.named}: {folder} is no whole diffusers folder of a {_PIPELINE}; missing: {', '.join(missing)}"
        )


def _scheduler_config(model: Weights) -> Any:
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    def load(where: str, more: dict[str, Any]) -> Any:
        return DDPMScheduler.load_config(where, subfolder="scheduler", **more)

    return _loaded(model, load)


def _open_part(kind: Any, model: Weights, folder: str) -> Any:
    """One part of a model; a single file is converted as it is read."""

    def load(where: str, more: dict[str, Any]) -> Any:
        if model.is_file:
            return kind.from_single_file(where)
        place = {"subfolder": folder} if folder else {}
        return kind.from_pretrained(where, use_safetensors=True, **place, **more)

    return _loaded(model, load)


def _open_pipeline(model: Weights, given: Mapping[str, Any]) -> Any:
    """The stock pipeline with some parts replaced (None: not loaded)."""
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

    options: dict[str, Any] = {
        "requires_safety_checker": False,
        "safety_checker": None,
        "feature_extractor": None,
        **given,
    }

    def load(where: str, more: dict[str, Any]) -> Any:
        if model.is_file:
            return StableDiffusionPipeline.from_single_file(where, **options)
        return StableDiffusionPipeline.from_pretrained(where, use_safetensors=True, **options, **more)

    return _loaded(model, load)


def _to(part: Any, device: str, dtype: str) -> Any:
    """A part on its device in the dtype asked for, whatever it was stored in (diffusers and transformers differ there)."""
    import torch

    # Not part.to: diffusers' own warns at each change of dtype.
    return torch.nn.Module.to(part, device=device, dtype=getattr(torch, dtype))


def _loaded(model: Weights, load: Callable[[str, dict[str, Any]], Any]) -> Any:
    """What `load(where, options)` gives, with its failures in words."""
    from diffusers.utils import logging
    from transformers.utils import logging as transformers_logging

    logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    try:
        if model.path is None:
            return load(model.hub, {"revision": commit_of(model)})
        return load(str(model.path), {})
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        where = model.path or f"{model.hub} on the hub"
        raise ModelError(
            f"base model {model.named}: {where} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
