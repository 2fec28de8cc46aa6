"""The LoRA as programs other than diffusers load it: other names, alpha beside each module, and q, k and v in one where they have it so."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lora_pipeline.families.kohya import Place

if TYPE_CHECKING:
    from torch import Tensor

_TENSOR = re.compile(r"(.+)\.(lora_[AB]\.weight|hada_w[12]_[ab]|lokr_w[12](?:_[ab])?)")
_MAGNITUDE = ".lora_magnitude_vector"
# Pairs of matrices whose product is low in rank, down (r × in) and up (out × r), and what they are called there.
_LORA = (("lora_A.weight", "lora_down.weight"), ("lora_B.weight", "lora_up.weight"))
_LOHA = (
    (("hada_w1_b", "hada_w1_b"), ("hada_w1_a", "hada_w1_a")),
    (("hada_w2_b", "hada_w2_b"), ("hada_w2_a", "hada_w2_a")),
)


class Unnamed(Exception):
    """Why a LoRA cannot be written for other programs, as the end of a sentence."""


@dataclass(frozen=True)
class _Part:
    """One module's LoRA: its tensors by the ends of their names, alpha, and which part of a layer there it is."""

    key: str
    tensors: "dict[str, Tensor]"
    alpha: float
    place: Place


def renamed(
    tensors: "Mapping[str, Tensor]", alpha_of: Callable[[str], float], place: Callable[[str], Place | None]
) -> "dict[str, Tensor]":
    """The tensors by the names that other programs know, with an `alpha` a module, since they scale by alpha / rank read from there.

    `unet.mid_block.attentions.0.proj_in.lora_A.weight` becomes `lora_unet_mid_block_attentions_0_proj_in.lora_down.weight`; the tensors
    of a LoKr or LoHa are called as they are here, as LyCORIS calls them.

    Where a layer there is several here, their LoRAs stand one beside the other, as sd-scripts' `split_qkv` writes them: n parts of rank r
    become rank n · r, with B zero outside of its own part's rows, so nothing is rounded, and alpha n times as great, so alpha / rank
    stays (kohya-ss/sd-scripts#2204). A part that has no LoRA is zero. Both products of a LoHa can be joined so, too. Kronecker's products
    cannot: so a LoKr with such a layer goes by the names that LyCORIS gives to diffusers' own modules, by which ComfyUI (and, for
    FLUX.2, diffusers) finds the rows: `lycoris_transformer_blocks_0_attn_to_q.lokr_w1`.

    Args:
        tensors: by diffusers' names.
        alpha_of: alpha of a module, by its name without the tensor's ending.
        place: of a module, likewise.

    Raises:
        Unnamed: the LoRA holds something that has no known name there.
    """
    import torch

    parts: dict[str, _Part] = {}
    for key, tensor in tensors.items():
        if key.endswith(_MAGNITUDE):
            # The names would not differ (`dora_scale`), but the numbers do: ComfyUI and Forge divide by the norm of W where DoRA has
            # that of W + ΔW (`weight_decompose` in ComfyUI's comfy/weight_adapter/base.py, where the scale is per output).
            raise Unnamed("it is a DoRA, which they draw otherwise than it was trained")
        found = _TENSOR.fullmatch(key)
        if found is None:
            raise Unnamed(f"it holds more than a plain LoRA's two matrices a module, or a LoKr's or LoHa's ({key})")
        module, end = found.groups()
        if module not in parts:
            there = place(module)
            if there is None:
                raise Unnamed(f"{module} has no name there that is known")
            parts[module] = _Part(module, {}, alpha_of(module), there)
        parts[module].tensors[end] = tensor
    lokr = any(".lokr_" in key for key in tensors)
    by_lycoris = lokr and any(len(part.place.parts) > 1 for part in parts.values())
    layers: dict[str, list[_Part]] = {}
    for module, part in parts.items():
        name = f"lycoris_{module.partition('.')[2].replace('.', '_')}" if by_lycoris else part.place.module
        layers.setdefault(name, []).append(part)
    other: dict[str, Any] = {}
    for name, joined in sorted(layers.items()):
        first = joined[0]
        if lokr:
            named, alpha = first.tensors, first.alpha
        else:
            pairs = _LOHA if "hada_w1_a" in first.tensors else (_LORA,)
            named, alpha = _named(joined, pairs), first.alpha * len(first.place.parts)
        other |= {f"{name}.{end}": tensor for end, tensor in named.items()}
        other[f"{name}.alpha"] = torch.tensor(alpha)
    return other


def _named(parts: list[_Part], pairs: tuple[tuple[tuple[str, str], tuple[str, str]], ...]) -> "dict[str, Tensor]":
    """The matrices of a layer by their names there, joined if it is several here."""
    named: dict[str, Any] = {}
    for (down, down_there), (up, up_there) in pairs:
        if len(parts[0].place.parts) > 1:
            named[down_there], named[up_there] = _fused(parts, down, up)
        else:
            named[down_there], named[up_there] = parts[0].tensors[down], parts[0].tensors[up]
    return named


def _fused(parts: list[_Part], down: str, up: str) -> "tuple[Tensor, Tensor]":
    """Down and up of a layer that is several here."""
    first = parts[0]
    rank, sizes = len(first.tensors[down]), first.place.parts
    unit = len(first.tensors[up]) // sizes[first.place.part]
    for one in parts:
        if len(one.tensors[down]) != rank or one.alpha != first.alpha:
            raise Unnamed(f"{first.key} and {one.key} are one layer there, but differ in rank or alpha")
        if len(one.tensors[up]) != unit * sizes[one.place.part]:
            raise Unnamed(f"{first.key} and {one.key} are one layer there, but not of the sizes that it has")
    whole_down = first.tensors[down].new_zeros(rank * len(sizes), first.tensors[down].shape[1])
    whole_up = first.tensors[up].new_zeros(unit * sum(sizes), rank * len(sizes))
    for one in parts:
        at, row = one.place.part, unit * sum(sizes[: one.place.part])
        whole_down[rank * at : rank * (at + 1)] = one.tensors[down]
        whole_up[row : row + len(one.tensors[up]), rank * at : rank * (at + 1)] = one.tensors[up]
    return whole_down, whole_up
