"""The LoRA by the key names that programs other than diffusers read: those of kohya-ss/sd-scripts."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_PREFIX = "unet."
_ENDS = {
    ".lora_A.weight": "lora_down.weight",
    ".lora.down.weight": "lora_down.weight",
    ".lora_B.weight": "lora_up.weight",
    ".lora.up.weight": "lora_up.weight",
}


def renamed(
    tensors: "Mapping[str, Tensor]", alpha: float, alphas: Mapping[str, float] | None = None
) -> "dict[str, Tensor] | None":
    """The tensors by kohya's names, with an `alpha` a module, since those programs scale by alpha / rank read from there.

    `unet.mid_block.attentions.0.proj_in.lora_A.weight` becomes `lora_unet_mid_block_attentions_0_proj_in.lora_down.weight`.

    Args:
        tensors: by diffusers' names.
        alpha: of most modules.
        alphas: of the others, by the module's name within the U-Net.

    Returns:
        None if a key is not of a U-Net, or not of a plain LoRA: then the names differ from program to program. Of DoRA they would not
        (`dora_scale`), but the numbers do: ComfyUI and Forge divide by the norm of W where DoRA has that of W + ΔW (`weight_decompose`
        in ComfyUI's comfy/weight_adapter/base.py, where the scale is per output), and sd-scripts knows none.
    """
    import torch

    other: dict[str, Any] = {}
    for key, tensor in tensors.items():
        end = next((end for end in _ENDS if key.endswith(end)), None)
        if end is None or not key.startswith(_PREFIX):
            return None
        name = key[len(_PREFIX) : -len(end)]
        module = "lora_unet_" + name.replace(".", "_")
        other[f"{module}.{_ENDS[end]}"] = tensor
        other[f"{module}.alpha"] = torch.tensor(float((alphas or {}).get(name, alpha)))
    return other
