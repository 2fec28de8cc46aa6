"""What families share: each is a stock pipeline of diffusers, in a folder, on the hub, or (some) in one file.

A family's own file says which classes and folders it is made of, and how its texts, its noise and its denoiser are spoken to.
Shapes: see `protocol.py`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lora_pipeline.errors import ModelError
from lora_pipeline.families.kohya import Naming
from lora_pipeline.families.lora_file import ADAPTER, lycoris_kind, read_metadata, write_lora
from lora_pipeline.families.protocol import (
    Conditioning,
    Family,
    NoiseSchedule,
    Part,
    PictureEncoder,
    Quantised,
    TextEncoder,
)
from lora_pipeline.families.reach import measured_reach_px
from lora_pipeline.families.weights import Weights, check_hub, commit_of, digest_of, read_json, weights_of
from lora_pipeline.settings import BaseSettings

if TYPE_CHECKING:
    from torch import Tensor

FLOW_STEPS = 1000  # timesteps of every flow here, as in its scheduler's num_train_timesteps

# Every linear layer and convolution within a ResnetBlock2D, a Downsample2D or an Upsample2D of a U-Net:
# `UNET_TARGET_REPLACE_MODULE_CONV2D_3X3` of kohya-ss/sd-scripts' networks/lora.py.
UNET_CONV_TARGETS = (
    "conv1",
    "conv2",
    "conv_shortcut",
    "time_emb_proj",
    "downsamplers.0.conv",
    "upsamplers.0.conv",
)
# Every linear layer within a CLIPAttention or a CLIPMLP: `TEXT_ENCODER_TARGET_REPLACE_MODULE` there.
CLIP_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")


class StockFamily:
    """What a family does that its stock pipeline's class names and folders determine; see `Family` for what each method promises."""

    name: str
    architecture: str
    naming: Naming
    lora_targets: tuple[str, ...]
    conv_targets: tuple[str, ...] = ()
    text_targets: tuple[str, ...] = ()
    trained_texts: tuple[str, ...] = ()
    clip_skips: bool = False
    half: Literal["float16", "bfloat16"] = "bfloat16"

    pipeline_class: str  # in diffusers, and in the folder's model_index.json
    denoiser_class: str
    denoiser_folder: str = "transformer"
    vae_class: str = "AutoencoderKL"
    text_folders: tuple[str, ...] = ("text_encoder", "tokenizer")
    single_file: bool = False  # whether one file holds all of such a model
    patch: int = 1  # latent cells a side that the denoiser takes as one
    cells: int = 1  # cells of the autoencoder that the denoiser's in_channels count

    @property
    def folders(self) -> dict[Part, tuple[str, ...]]:
        """Folders of each part."""
        return {
            "whole": (self.denoiser_folder, "scheduler", "vae", *self.text_folders),
            "pictures": ("vae",),
            "texts": self.text_folders,
            "denoiser": (self.denoiser_folder, "scheduler"),
        }

    def check(self, base: BaseSettings) -> None:
        """See `Family.check`."""
        model = weights_of(base.model, base.revision)
        if model.path is None:
            encoders = [name for name in self.text_folders if name.startswith("text_encoder")]
            parts = [f"{name}/config.json" for name in (self.denoiser_folder, "vae", *encoders)]
            check_hub(model, ("model_index.json", *parts))
        index = read_json(model, "model_index.json")
        if index is not None and index.get("_class_name") != self.pipeline_class:
            raise ModelError(
                f"base model {base.model} is a {index.get('_class_name')}, and base.family {self.name} needs a {self.pipeline_class}"
            )
        if model.path is not None and not model.is_file:
            self._check_folder(model, model.path)
        if model.is_file and not self.single_file:
            raise ModelError(
                f"base model {base.model}: one file holds only a part of a {self.pipeline_class}; "
                "set base.model to a diffusers folder or a hub id"
            )
        if base.vae:
            vae = weights_of(base.vae)
            if vae.path is None:
                check_hub(vae, ("config.json",))
        self._check_channels(base, model)
        self._check_clip_skip(base, model)

    def _check_folder(self, model: Weights, folder: Path) -> None:
        weights = [
            self.denoiser_folder,
            "vae",
            *(name for name in self.text_folders if name.startswith("text_encoder")),
        ]
        words = [name for name in self.text_folders if name.startswith("tokenizer")]
        wanted = (
            "model_index.json",
            *(f"{name}/*.safetensors" for name in weights),
            *(f"{name}/*" for name in words),
            "scheduler/*.json",
            f"{self.denoiser_folder}/config.json",
            "vae/config.json",
        )
        missing = [name for name in wanted if not any(folder.glob(name))]
        if missing:
            raise ModelError(
                f"base model {model.named}: {folder} is no whole diffusers folder of a {self.pipeline_class}; missing: {', '.join(missing)}"
            )

    def _check_channels(self, base: BaseSettings, model: Weights) -> None:
        denoiser = read_json(model, f"{self.denoiser_folder}/config.json")
        vae = read_json(weights_of(base.vae), "config.json") if base.vae else read_json(model, "vae/config.json")
        if denoiser is None or vae is None:  # in a single file, or not downloaded yet
            return
        given = vae.get("latent_channels", vae.get("z_dim"))
        if given is None or denoiser.get("in_channels") is None:
            return
        wanted = denoiser["in_channels"] // self.cells
        if wanted != given:
            why = (
                "an inpainting model cannot be trained here"
                if wanted == 2 * given + 1
                else "they do not belong together"
            )
            raise ModelError(
                f"base model {base.model}: its denoiser takes {wanted} latent channels, the autoencoder gives {given}: {why}"
            )

    def _check_clip_skip(self, base: BaseSettings, model: Weights) -> None:
        if base.clip_skip == 1:
            return
        if not self.clip_skips:
            raise ModelError(
                f"base.clip_skip {base.clip_skip}: the denoiser of {self.name} always reads those layers of its text encoders that it "
                "was made for, whatever other programs show as clip skip: set it to 1"
            )
        layers = (read_json(model, "text_encoder/config.json") or {}).get("num_hidden_layers")
        if layers is not None and base.clip_skip > layers:
            raise ModelError(
                f"base.clip_skip {base.clip_skip}: the text encoder of {base.model} has {layers} layers: set it to 1 to {layers}"
            )

    def digest(self, base: BaseSettings, part: Part = "whole") -> str:
        """See `Family.digest`."""
        reads = part in {"whole", "texts"} and base.clip_skip > 1
        return self._weights_digest(base, part) + (f"+clip_skip={base.clip_skip}" if reads else "")

    def _weights_digest(self, base: BaseSettings, part: Part) -> str:
        model = weights_of(base.model, base.revision)
        folders = self.folders[part]
        if not base.vae or part in {"texts", "denoiser"}:
            return digest_of(model, folders)
        vae = digest_of(weights_of(base.vae), (".",))
        if part == "pictures":
            return vae
        return f"{digest_of(model, tuple(folder for folder in folders if folder != 'vae'))}+{vae}"

    def open_pictures(self, base: BaseSettings, device: str, dtype: str) -> PictureEncoder:
        """See `Family.open_pictures`."""
        vae = to(self.open_vae(base), device, dtype).requires_grad_(False).eval()
        factor_px = self.factor_px(vae)
        encoder = Autoencoder(lambda pictures: self.latents_of(vae, pictures), vae, device, factor_px, self.patch)
        return replace(encoder, reach_px=measured_reach_px(encoder.encode, factor_px))

    def factor_px(self, vae: Any) -> int:
        """Pixels a side of one cell of `latents_of`."""
        return 2 ** (len(vae.config.block_out_channels) - 1)

    def latents_of(self, vae: Any, pictures: "Tensor") -> "Tensor":
        """Pictures (B×3×H×W, −1 to 1) to the latents that the denoiser was trained on (B×C×h×w), both on the autoencoder's device."""
        mean = vae.encode(pictures).latent_dist.mode().float()
        return (mean - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor

    def open_denoiser(self, base: BaseSettings, device: str, dtype: str, quantised: Quantised | None = None) -> Any:
        """See `Family.open_denoiser`."""
        import torch

        kind, model = stock_class(self.denoiser_class), weights_of(base.model, base.revision)
        # In the format asked for from the start, so that nothing is ever there in one twice as large.
        how: dict[str, Any] = {"torch_dtype": getattr(torch, dtype)}
        if quantised is None:
            return to(open_part(kind, model, self.denoiser_folder, **how), device, dtype).requires_grad_(False)
        how |= {"quantization_config": _by_bitsandbytes(quantised, how["torch_dtype"]), "device_map": {"": device}}
        try:
            return open_part(kind, model, self.denoiser_folder, **how).requires_grad_(False)
        except ModelError as error:
            why = f"fit.base_precision {quantised} is bitsandbytes' and needs a graphics card: if there is none, set it to bf16"
            raise ModelError(f"{error}; {why}") from error

    def blocks(self, module: Any) -> Sequence[Any]:
        """See `Family.blocks`."""
        import torch

        if self.denoiser_folder != "transformer":
            return ()
        return [block for part in module.children() if isinstance(part, torch.nn.ModuleList) for block in part]

    def save_lora(self, module: Any, path: Path, metadata: Mapping[str, str], encoders: Mapping[str, Any] = {}) -> None:
        """See `Family.save_lora`. Rank and alpha stand in diffusers' `lora_adapter_metadata`, from which it scales by alpha / rank.

        Modules that have others than most have them there too, by name.
        """
        tensors: dict[str, Any] = {}
        adapter: dict[str, Any] = {}
        for prefix, part in {self.denoiser_folder: module, **encoders}.items():
            its_tensors, its_adapter = _lora_in(part, prefix)
            tensors |= its_tensors
            adapter |= its_adapter
        write_lora(path, tensors, {"format": "pt", **metadata, ADAPTER: json.dumps(adapter, sort_keys=True)})

    def load_lora(self, pipeline: Any, path: Path) -> None:
        """See `Family.load_lora`."""
        from safetensors.torch import load_file

        tensors, prefix = load_file(path), f"{self.denoiser_folder}."
        kind = lycoris_kind(tensors)
        if not kind:
            pipeline.load_lora_weights(str(path))
            return
        from peft import LoHaConfig, LoKrConfig, inject_adapter_in_model, set_peft_model_state_dict

        told = {name.removeprefix(prefix): one for name, one in json.loads(read_metadata(path)[ADAPTER]).items()}
        denoiser = getattr(pipeline, self.denoiser_folder)
        inject_adapter_in_model({"lokr": LoKrConfig, "loha": LoHaConfig}[kind](**told), denoiser)
        set_peft_model_state_dict(denoiser, {name.removeprefix(prefix): one for name, one in tensors.items()})

    def set_strength(self, pipeline: Any, strength: float) -> None:
        """See `Family.set_strength`. What diffusers' `set_adapters` does to each layer, and to those that peft alone knows of too."""
        import torch
        from peft.tuners.tuners_utils import BaseTunerLayer

        parts = [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]
        layers: list[Any] = [one for part in parts for one in part.modules() if isinstance(one, BaseTunerLayer)]
        for layer in layers:
            for adapter in layer.active_adapters:
                layer.set_scale(adapter, strength)

    def pipeline(
        self,
        base: BaseSettings,
        device: str,
        dtype: str,
        module: Any = None,
        encoders: Mapping[str, Any] = {},
    ) -> Any:
        """See `Family.pipeline`."""
        in_training = {**({} if module is None else {self.denoiser_folder: module}), **encoders}
        given: dict[str, Any] = dict(in_training)
        if base.vae:
            given["vae"] = self.open_vae(base)
        pipeline = self.open_pipeline(base, given)
        pipeline.set_progress_bar_config(disable=True)
        for name in ("vae", *self.text_folders, self.denoiser_folder):
            if not name.startswith("tokenizer") and name not in in_training:  # what is in training keeps its dtypes
                to(getattr(pipeline, name), device, dtype)
        return pipeline

    def guided(self, scale: float, negative: Sequence[str]) -> dict[str, Any]:
        """See `Family.guided`."""
        return {"guidance_scale": scale, "negative_prompt": list(negative)}

    def open_pipeline(self, base: BaseSettings, given: Mapping[str, Any]) -> Any:
        """The stock pipeline with some parts replaced (None: not loaded), in the dtypes that its files have. Raises ModelError."""
        model, kind = weights_of(base.model, base.revision), stock_class(self.pipeline_class)

        def load(where: str, more: dict[str, Any]) -> Any:
            if model.is_file:
                return kind.from_single_file(where, **given)
            return kind.from_pretrained(where, use_safetensors=True, **given, **more)

        return loaded(model, load)

    def open_trained_texts(self: Family, base: BaseSettings) -> TextEncoder:
        """See `Family.open_trained_texts`."""
        return self.open_texts(base, "cpu", "float32")

    def open_text_parts(self, base: BaseSettings, device: str, dtype: str, without: tuple[str, ...] = ()) -> Any:
        """The stock pipeline with nothing in it but tokenizers and text encoders (but for those of some folders), these ready for use. Raises ModelError."""
        parts = self.open_pipeline(base, dict.fromkeys((self.denoiser_folder, "vae", "scheduler", *without)))
        for name in self.text_folders:
            if name.startswith("text_encoder") and name not in without:
                to(getattr(parts, name), device, dtype).requires_grad_(False).eval()
        return parts

    def scheduler_config(self, base: BaseSettings) -> dict[str, Any]:
        """The configuration of the model's own scheduler. Raises ModelError."""
        model = weights_of(base.model, base.revision)
        if model.is_file:
            return dict(self.open_pipeline(base, {}).scheduler.config)

        def load(where: str, more: dict[str, Any]) -> Any:
            return stock_class("DDPMScheduler").load_config(where, subfolder="scheduler", **more)

        return dict(loaded(model, load))

    def open_vae(self, base: BaseSettings) -> Any:
        """The model's own autoencoder, or the other that the settings name. Raises ModelError."""
        kind = stock_class(self.vae_class)
        if base.vae:
            return open_part(kind, weights_of(base.vae), "")
        return open_part(kind, weights_of(base.model, base.revision), "vae")

    def diffusion_schedule(self, base: BaseSettings) -> NoiseSchedule:
        """The schedule of a diffusion (Ho et al. 2020), ε or v. Raises ModelError."""
        scheduler: Any = stock_class("DDPMScheduler").from_config(self.scheduler_config(base))
        kind = scheduler.config.prediction_type
        if kind not in {"epsilon", "v_prediction"}:
            raise ModelError(
                f"base model {base.model}: its scheduler's prediction_type is '{kind}'; trained here are epsilon and v_prediction"
            )
        kept = scheduler.alphas_cumprod.double()
        return NoiseSchedule(kind, tuple(kept.sqrt().tolist()), tuple((1 - kept).sqrt().tolist()))

    def flow_schedule(self, base: BaseSettings) -> NoiseSchedule:
        """The schedule of a rectified flow, x_t = (1 − σ) x_0 + σ ε with σ = (t + 1) / T. Raises ModelError.

        A scheduler's shift (Esser et al. 2024, eq. 23) moves no σ here: in training it says how often each σ is drawn.
        """
        config = self.scheduler_config(base)
        if config.get("num_train_timesteps", FLOW_STEPS) != FLOW_STEPS:
            raise ModelError(
                f"base model {base.model}: its scheduler counts {config['num_train_timesteps']} timesteps; a flow of {FLOW_STEPS} is trained here"
            )
        sigmas = tuple((t + 1) / FLOW_STEPS for t in range(FLOW_STEPS))
        # A dynamic shift belongs to drawing: diffusers' and sd-scripts' training leave it out by default.
        shift = 1.0 if config.get("use_dynamic_shifting") else float(config.get("shift", 1.0))
        return NoiseSchedule("flow", tuple(1 - sigma for sigma in sigmas), sigmas, shift)


def _lora_in(module: Any, prefix: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensors and `lora_adapter_metadata` of the LoRA, or its kin, in a module, by the names that diffusers has for a part of that name."""
    from peft import get_peft_model_state_dict

    config = module.peft_config["default"]
    told = {"r": config.r, "target_modules": sorted(config.target_modules)}
    match config.peft_type.value:
        case "LOKR":
            told |= {"alpha": config.alpha, "decompose_factor": config.decompose_factor}
        case "LOHA":
            told |= {"alpha": config.alpha}
        case _:
            told |= {"lora_alpha": config.lora_alpha, **({"use_dora": True} if config.use_dora else {})}
    if config.rank_pattern or config.alpha_pattern:
        told |= {"rank_pattern": config.rank_pattern, "alpha_pattern": config.alpha_pattern}
    adapter = {f"{prefix}.{name}": value for name, value in told.items()}
    # transformers 5 keeps CLIPTextModel's parts without the "text_model" by which every file and reader of files knows them
    within = "text_model." if prefix.startswith("text_encoder") and not hasattr(module, "text_model") else ""
    # Names as peft says them (…lora_A.weight). diffusers' own convert_state_dict_to_diffusers renames the attention's alone,
    # and its loader, which judges by the first name, then leaves all of the attention's out with no more than a warning.
    state = get_peft_model_state_dict(module)
    return {f"{prefix}.{within}{name}": tensor.float() for name, tensor in state.items()}, adapter


def flow_time(timesteps: "Tensor") -> "Tensor":
    """σ of `StockFamily.flow_schedule` at B timesteps: what a flow's denoiser is told of time, float32, up to 1."""
    return (timesteps.float() + 1) / FLOW_STEPS


def tokens_of(texts: str | list[str], tokenizer: Any) -> Any:
    """What a stock pipeline hands CLIP: `input_ids` and `attention_mask`, B×77 each; of longer texts the beginning."""
    length = tokenizer.model_max_length
    return tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")


@dataclass(frozen=True)
class Autoencoder:
    """`PictureEncoder` of a stock autoencoder.

    Args:
        latents_of: pictures to latents, on the autoencoder's device.
        vae: the autoencoder.
        device: it is on.
        factor_px, reach_px: see `PictureEncoder`.
        patch: latent cells a side that the denoiser takes as one.
    """

    latents_of: "Callable[[Tensor], Tensor]"
    vae: Any
    device: str
    factor_px: int
    patch: int
    reach_px: int = 0

    def encode(self, pictures: "Tensor") -> "Tensor":
        """See `PictureEncoder.encode`. Raises ModelError if the pictures' sides are no multiples of what the denoiser takes as one."""
        import torch

        whole_patches(pictures, self.factor_px * self.patch)
        with torch.no_grad():
            return self.latents_of(pictures.to(self.device, self.vae.dtype)).float().cpu()


def whole_patches(pictures: "Tensor", side_px: int) -> None:
    """Raise ModelError unless both sides of the pictures (B×3×H×W) are multiples of what the denoiser takes as one."""
    height, width = int(pictures.shape[-2]), int(pictures.shape[-1])
    if height % side_px or width % side_px:
        raise ModelError(
            f"a picture of {width} × {height} px has sides that are no multiples of {side_px} px, which this base model needs: "
            f"set encode.bucket_step_px and encode.resolution_px to multiples of {side_px}"
        )


@dataclass(frozen=True)
class StockTexts:
    """`TextEncoder` through the stock pipeline's own `encode_prompt`, one text at a time, so that none depends on its neighbours.

    Args:
        told: what the denoiser is told of a text, each tensor with a batch axis of 1.
        tokenizer: the one that sees most of a long text.
        max_tokens: how much of it.
        worded: the text as that tokenizer gets it.
        encoders: see `TextEncoder`; if there are any, `told` takes several texts too.
        partial: see `TextEncoder`.
    """

    told: "Callable[[Any], Conditioning]"
    tokenizer: Any
    max_tokens: int
    worded: Callable[[str], str] = str
    encoders: Mapping[str, Any] = field(default_factory=dict)
    partial: bool = False

    def encode(self, texts: Sequence[str]) -> list[Conditioning]:
        """See `TextEncoder.encode`."""
        import torch

        with torch.no_grad():
            return [{name: value[0].float().cpu() for name, value in self.told(text).items()} for text in texts]

    def with_graph(self, texts: Sequence[str]) -> Conditioning:
        """See `TextEncoder.with_graph`."""
        return self.told(list(texts))

    def cut_tokens(self, text: str) -> int:
        """See `TextEncoder.cut_tokens`."""
        tokens = self.tokenizer(self.worded(text), truncation=False, verbose=False).input_ids
        return max(0, len(tokens) - self.max_tokens)


def padded(states: "Tensor", length: int) -> Conditioning:
    """A text's states (L×D) filled up with zeros to a length that all texts share, and which of them are the text's.

    Returns:
        `encoder_hidden_states` (1×length×D) and `mask` (1×length, 1 or 0).
    """
    import torch

    filled = states.new_zeros(1, length, states.shape[1])
    filled[0, : len(states)] = states
    mask = (torch.arange(length, device=states.device) < len(states)).to(states.dtype)
    return {"encoder_hidden_states": filled, "mask": mask[None]}


def packed(latents: "Tensor") -> "Tensor":
    """Latents (B×C×h×w) as rows of 2 × 2 cells, B × (h/2 · w/2) × 4C: channel by channel, in each its four cells in reading order."""
    batch, channels, height, width = latents.shape
    cells = latents.reshape(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return cells.reshape(batch, (height // 2) * (width // 2), channels * 4)


def unpacked(rows: "Tensor", height: int, width: int) -> "Tensor":
    """`packed` undone: rows to B×C×h×w."""
    batch, _, wide = rows.shape
    cells = rows.reshape(batch, height // 2, width // 2, wide // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return cells.reshape(batch, wide // 4, height, width)


def stock_class(name: str) -> Any:
    """A class of diffusers by its name. Raises ModelError if the installed diffusers has none of that name."""
    import diffusers

    if not hasattr(diffusers, name):
        raise ModelError(f"the installed diffusers {diffusers.__version__} has no {name}; install a newer one")
    return getattr(diffusers, name)


def _by_bitsandbytes(quantised: Quantised, compute_dtype: Any) -> Any:
    """How diffusers is told to have a part's linear layers held by bitsandbytes."""
    config = stock_class("BitsAndBytesConfig")
    if quantised == "int8":
        return config(load_in_8bit=True)
    return config(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute_dtype)


def open_part(kind: Any, model: Weights, folder: str, **how: Any) -> Any:
    """One part of a model; a single file is converted as it is read. Raises ModelError."""

    def load(where: str, more: dict[str, Any]) -> Any:
        if model.is_file:
            return kind.from_single_file(where, **how)
        place = {"subfolder": folder} if folder else {}
        return kind.from_pretrained(where, use_safetensors=True, **place, **more, **how)

    return loaded(model, load)


def to(part: Any, device: str, dtype: str) -> Any:
    """A part on its device in the dtype asked for, whatever it was stored in (diffusers and transformers differ there)."""
    import torch

    # Not part.to: diffusers' own warns at each change of dtype.
    return torch.nn.Module.to(part, device=device, dtype=getattr(torch, dtype))


def loaded(model: Weights, load: Callable[[str, dict[str, Any]], Any]) -> Any:
    """What `load(where, options)` gives, with its failures in words. Raises ModelError."""
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
