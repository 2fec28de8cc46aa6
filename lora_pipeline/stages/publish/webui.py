"""The LoRA as programs other than diffusers load it: other names, alpha beside each module, and q, k and v in one where they have it so."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lora_pipeline.families.kohya import Place

if TYPE_CHECKING:
    from torch import Tensor

_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"
_MAGNITUDE = ".lora_magnitude_vector"


class Unnamed(Exception):
    """Why a LoRA cannot be written for other programs, as the end of a sentence."""


@dataclass(frozen=True)
class _Part:
    """One module's LoRA: down (A, r × in), up (B, out × r), alpha, and which part of a layer there it is."""

    key: str
    down: Any
    up: Any
    alpha: float
    place: Place


def renamed(
    tensors: "Mapping[str, Tensor]", alpha_of: Callable[[str], float], place: Callable[[str], Place | None]
) -> "dict[str, Tensor]":
    """The tensors by the names that other programs know, with an `alpha` a module, since they scale by alpha / rank read from there.

    `unet.mid_block.attentions.0.proj_in.lora_A.weight` becomes `lora_unet_mid_block_attentions_0_proj_in.lora_down.weight`.

    Where a layer there is several here, their LoRAs stand one beside the other, as sd-scripts' `split_qkv` writes them: n parts of rank r
    become rank n · r, with B zero outside of its own part's rows, so nothing is rounded, and alpha n times as great, so alpha / rank
    stays (kohya-ss/sd-scripts#2204). A part that has no LoRA is zero.

    Args:
        tensors: by diffusers' names.
        alpha_of: alpha of a module, by its name without the tensor's ending.
        place: of a module, likewise.

    Raises:
        Unnamed: the LoRA holds something that has no known name there.
    """
    import torch

    layers: dict[str, list[_Part]] = {}
    for key in tensors:
        if key.endswith(_MAGNITUDE):
            # The names would not differ (`dora_scale`), but the numbers do: ComfyUI and Forge divide by the norm of W where DoRA has
            # that of W + ΔW (`weight_decompose` in ComfyUI's comfy/weight_adapter/base.py, where the scale is per output).
            raise Unnamed("it is a DoRA, which they draw otherwise than it was trained")
        if not key.endswith((_DOWN, _UP)):
            raise Unnamed(f"it holds more than a plain LoRA's two matrices a module ({key})")
        module = key.removesuffix(_DOWN).removesuffix(_UP)
        if key.endswith(_UP):
            continue
        there = place(module)
        if there is None:
            raise Unnamed(f"{module} has no name there that is known")
        part = _Part(module, tensors[key], tensors[module + _UP], alpha_of(module), there)
        layers.setdefault(there.module, []).append(part)
    other: dict[str, Any] = {}
    for name, parts in sorted(layers.items()):
        down, up, alpha = (
            _fused(parts) if len(parts[0].place.parts) > 1 else (parts[0].down, parts[0].up, parts[0].alpha)
        )
        other |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(alpha)}
    return other


def _fused(parts: list[_Part]) -> "tuple[Tensor, Tensor, float]":
    """Down, up and alpha of a layer that is several here."""
    first = parts[0]
    rank, sizes = len(first.down), first.place.parts
    unit = len(first.up) // sizes[first.place.part]
    for one in parts:
        if len(one.down) != rank or one.alpha != first.alpha:
            raise Unnamed(f"{first.key} and {one.key} are one layer there, but differ in rank or alpha")
        if len(one.up) != unit * sizes[one.place.part]:
            raise Unnamed(f"{first.key} and {one.key} are one layer there, but not of the sizes that it has")
    down = first.down.new_zeros(rank * len(sizes), first.down.shape[1])
    up = first.up.new_zeros(unit * sum(sizes), rank * len(sizes))
    for one in parts:
        at, row = one.place.part, unit * sum(sizes[: one.place.part])
        down[rank * at : rank * (at + 1)] = one.down
        up[row : row + len(one.up), rank * at : rank * (at + 1)] = one.up
    return down, up, first.alpha * len(sizes)
