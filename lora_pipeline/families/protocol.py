"""What a family of base models must be able to do: one written protocol, a file a family.

Shape legend, used in every family and in `stages/encode` and `stages/fit`:
    B pictures, H × W pixels, h × w latent cells (h = H / factor), C latent channels, T timesteps of the noise schedule.

The stages ask a family for its prediction kind, never for its name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from lora_pipeline.families.kohya import Naming
from lora_pipeline.settings import BaseSettings

if TYPE_CHECKING:
    from torch import Tensor

PredictionKind = Literal["epsilon", "v_prediction", "flow"]
Part = Literal["whole", "pictures", "texts", "denoiser"]
Quantised = Literal["int8", "nf4"]
Conditioning = dict[str, "Tensor"]


@dataclass(frozen=True)
class NoiseSchedule:
    """How noise is added, and what the denoiser is asked for.

    A noisy latent at timestep t is x_t = alphas[t] · x_0 + sigmas[t] · ε with ε ~ N(0, 1).

    Args:
        kind: what the denoiser predicts: ε; v = alpha · ε − sigma · x_0 (Salimans and Ho 2022); or the flow ε − x_0.
        alphas, sigmas: T numbers each, by timestep. For a diffusion, alphas² = ᾱ ("alphas_cumprod") and sigmas² = 1 − ᾱ.
        shift: how a flow's own scheduler spreads its timesteps: sigma becomes shift · sigma / (1 + (shift − 1) · sigma); 1 is evenly.
            `sigmas` are even; a trainer that draws timesteps by this shift sees them as often as the model's makers did.
    """

    kind: PredictionKind
    alphas: tuple[float, ...]
    sigmas: tuple[float, ...]
    shift: float = 1.0


class PictureEncoder(Protocol):
    """The autoencoder's first half, opened."""

    @property
    def factor_px(self) -> int:
        """Pixels a side of one latent cell."""
        ...

    @property
    def reach_px(self) -> int:
        """How far from its own cell's edge a latent still feels a pixel, in pixels: a mask grows by as much."""
        ...

    def encode(self, pictures: "Tensor") -> "Tensor":
        """Pictures (B×3×H×W, float, −1 to 1, RGB) to scaled latents (B×C×h×w, float32, on the CPU).

        The mean of the autoencoder's distribution, not a sample of it, so that one picture has one latent.
        """
        ...


class TextEncoder(Protocol):
    """Tokenizer and text encoder, opened."""

    def encode(self, texts: Sequence[str]) -> list[Conditioning]:
        """For each text what `predict` needs of it: named tensors without a batch axis, float32, on the CPU."""
        ...

    @property
    def encoders(self) -> Mapping[str, Any]:
        """The encoders that a LoRA can be trained in, as torch modules by the names of their folders (`Family.trained_texts`)."""
        ...

    @property
    def partial(self) -> bool:
        """Whether it gives a part alone of what `predict` needs of a text, the rest being of encoders that are not trained."""
        ...

    def with_graph(self, texts: Sequence[str]) -> Conditioning:
        """As `encode`, of texts stacked to a batch axis in front, where the encoders are, and with the graph that their LoRA learns by."""
        ...

    def cut_tokens(self, text: str) -> int:
        """How many tokens at the text's end do not fit and are not seen by the model; 0 if all fit."""
        ...


class Family(Protocol):
    """A family of base models. Making one is free; what costs is opened by its methods."""

    @property
    def name(self) -> str:
        """As in `BaseSettings.family`."""
        ...

    @property
    def architecture(self) -> str:
        """The base's name in a LoRA's header, as Stability AI's ModelSpec 1.0 lists them: "stable-diffusion-v1"."""
        ...

    @property
    def naming(self) -> Naming:
        """What other programs call the family and the modules of a LoRA for it."""
        ...

    @property
    def denoiser_folder(self) -> str:
        """The denoiser's folder in a diffusers model, which is its name in the pipeline and what names in a LoRA file begin with."""
        ...

    @property
    def lora_targets(self) -> tuple[str, ...]:
        """Endings of the names of the denoiser's modules that get a LoRA."""
        ...

    @property
    def conv_targets(self) -> tuple[str, ...]:
        """Endings of the names of the modules that get one too where convolutions are trained; empty: there are none."""
        ...

    @property
    def text_targets(self) -> tuple[str, ...]:
        """Endings of the names of the text encoders' modules that get a LoRA; empty: text encoders are not trained."""
        ...

    @property
    def trained_texts(self) -> tuple[str, ...]:
        """The folders of the text encoders that can be trained, in the order in which sd-scripts lists their rates."""
        ...

    @property
    def clip_skips(self) -> bool:
        """Whether another layer of its text encoder can be read; see `BaseSettings.clip_skip`."""
        ...

    @property
    def half(self) -> Literal["float16", "bfloat16"]:
        """The 16-bit format that the model was made for, and draws in without overflowing."""
        ...

    def check(self, base: BaseSettings) -> None:
        """Make sure, before any other work, that the weights are there or can be had.

        Raises:
            ModelError: a file is missing, the hub has no such model, or its licence is not accepted yet; the message
                says which, and what to do.
        """
        ...

    def digest(self, base: BaseSettings, part: Part = "whole") -> str:
        """Identity of the weights: of the files' bytes for a folder or file, id@commit for a hub id; of `whole` and `texts` with the clip skip.

        Args:
            part: `pictures` is the autoencoder alone, `texts` tokenizer and text encoder, `denoiser` it and its schedule.

        Raises:
            ModelError: as `check`.
        """
        ...

    def open_pictures(self, base: BaseSettings, device: str, dtype: str) -> PictureEncoder:
        """Load the autoencoder. `dtype` is "float32", "float16" or "bfloat16". Raises ModelError."""
        ...

    def open_texts(self, base: BaseSettings, device: str, dtype: str) -> TextEncoder:
        """Load tokenizer and text encoder. Raises ModelError."""
        ...

    def open_trained_texts(self, base: BaseSettings) -> TextEncoder:
        """Load, in float32 on the CPU, the text encoders that can be trained, and of the others what cannot do without. Raises ModelError."""
        ...

    def open_denoiser(self, base: BaseSettings, device: str, dtype: str, quantised: Quantised | None = None) -> Any:
        """Load the denoiser as a torch module whose parameters need no gradient.

        Args:
            dtype: "float32", "float16" or "bfloat16".
            quantised: how its linear layers are held: int8 is LLM.int8() (Dettmers et al. 2022), nf4 the 4 bits of QLoRA (Dettmers et
                al. 2023), both by bitsandbytes; `dtype` is then that of all else, and what nf4 computes in.

        Raises:
            ModelError: as `check`; or there is no graphics card to quantise on.
        """
        ...

    def blocks(self, module: Any) -> Sequence[Any]:
        """Those parts of a denoiser that it computes one after the other, and once more on the way back with gradient checkpointing; a U-Net has none."""
        ...

    def noise(self, base: BaseSettings) -> NoiseSchedule:
        """The noise schedule and the prediction kind, read from the model's own scheduler. Raises ModelError."""
        ...

    def predict(self, module: Any, noisy: "Tensor", timesteps: "Tensor", conditioning: Conditioning) -> "Tensor":
        """The denoiser's answer.

        Args:
            module: what `open_denoiser` gave.
            noisy: x_t, B×C×h×w.
            timesteps: B whole numbers, 0 to T − 1.
            conditioning: what `TextEncoder.encode` gave, stacked to a batch axis in front; and `framing` (B×6 float32, in
                pixels), how each picture came into its size: height and width of the original, top and left of what was cut out of
                it after it was scaled, height and width of that. A family may do without, and takes an absent one for a
                whole picture of the latents' size.

        Returns:
            B×C×h×w, of the schedule's kind.
        """
        ...

    def save_lora(self, module: Any, path: Path, metadata: Mapping[str, str], encoders: Mapping[str, Any] = {}) -> None:
        """Write the LoRA, DoRA, LoKr or LoHa in `module` (injected by peft, adapter "default") so that `load_lora` puts it back as trained.

        A .safetensors of float32 with diffusers' key names, written whole; equal weights and metadata give equal bytes.

        Args:
            encoders: text encoders whose LoRA (in them no other kind) is written too, by the names of their folders.
        """
        ...

    def load_lora(self, pipeline: Any, path: Path) -> None:
        """Put a file of `save_lora` into what `pipeline` gave; its `unload_lora_weights()` takes it out again.

        The pipeline's own `load_lora_weights(path)` does the same of a LoRA or DoRA, and of a LoKr where diffusers can (FLUX.2, Z-Image).
        """
        ...

    def set_strength(self, pipeline: Any, strength: float) -> None:
        """Scale what `load_lora` put in, in every part: 0 is the base model, 1 as it was trained. Nothing is loaded anew."""
        ...

    def pipeline(
        self,
        base: BaseSettings,
        device: str,
        dtype: str,
        module: Any = None,
        encoders: Mapping[str, Any] = {},
    ) -> Any:
        """The family's stock diffusers pipeline: no safety checker, no progress bar, the base's clip skip in its text encoder.

        Args:
            module: a denoiser to draw with in place of the base model's own, such as one in training.
            encoders: text encoders likewise, by the names of their folders.

        Raises:
            ModelError: as `check`.
        """
        ...

    def guided(self, scale: float, negative: Sequence[str]) -> dict[str, Any]:
        """How the pipeline's call is told of guidance: its own words for the scale, and for what to draw away from.

        Args:
            scale: of the guidance; 1 is none.
            negative: a prompt a picture; left out where the model knows none.
        """
        ...
