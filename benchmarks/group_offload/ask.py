"""Can diffusers' group offloading (`enable_group_offload`) hold a denoiser's blocks off the device while a LoRA in it is trained?

Asked on the CPU, of a FLUX of no size: what is offloaded goes to files, and what stands in its place is filled with NaN, so that a backward
pass that needs a weight which is not there shows. The gradients of a LoRA are compared with those of the same model that is not offloaded.

The answer is no, and so blocks wait in another way (`stages/fit/swap.py`):

- its hooks are of the forward pass alone. Without gradient checkpointing the backward pass finds weights that have gone: NaN.
- With it a block is there while it is computed a second time, and on this model the gradients are right. But, by its code, a LoRA is part of its block
  and is moved with it: when its gradient comes, on the device, its weights have already left (`ModuleGroup._offload_to_memory`), and
  an optimiser that finds the two on two devices fails; with accumulated batches, already the second backward pass.
- leaf by leaf, both ways: NaN.
"""

import tempfile
from typing import Any

RANK = 4


def ask() -> dict[str, object]:
    """The relative error of the LoRA's gradients, by how its model is offloaded; None: not finite."""
    import torch

    torch.use_deterministic_algorithms(mode=True)
    torch.utils.deterministic.fill_uninitialized_memory = True  # with NaN
    wanted = _gradients("", checkpointing=False)
    errors: dict[str, float | None] = {}
    for level in ("block_level", "leaf_level"):
        for checkpointing in (False, True):
            error = float((_gradients(level, checkpointing) - wanted).norm() / wanted.norm())
            name = f"{level}, {'with' if checkpointing else 'without'} gradient checkpointing"
            errors[name] = error if error == error else None
    return {"relative_error_of_gradients": errors}


def _gradients(level: str, checkpointing: bool) -> Any:
    import torch
    from diffusers import FluxTransformer2DModel
    from peft import LoraConfig, inject_adapter_in_model

    torch.manual_seed(0)
    size = {"num_layers": 2, "num_single_layers": 2, "attention_head_dim": 16, "num_attention_heads": 2}
    wide = {"in_channels": 64, "joint_attention_dim": 32, "pooled_projection_dim": 32, "axes_dims_rope": (4, 4, 8)}
    module: Any = FluxTransformer2DModel(**size, **wide).requires_grad_(False)
    inject_adapter_in_model(LoraConfig(r=RANK, target_modules=["to_q", "to_v"], init_lora_weights=False), module)
    module.train()
    if checkpointing:
        module.enable_gradient_checkpointing()
    given = {
        "hidden_states": torch.randn(1, 16, 64),
        "encoder_hidden_states": torch.randn(1, 5, 32),
        "pooled_projections": torch.randn(1, 32),
        "timestep": torch.ones(1),
        "txt_ids": torch.zeros(5, 3),
        "img_ids": torch.zeros(16, 3),
    }
    with tempfile.TemporaryDirectory() as folder:
        if level:
            cpu, blocks = torch.device("cpu"), 1 if level == "block_level" else None
            how = {"offload_type": level, "num_blocks_per_group": blocks, "offload_to_disk_path": folder}
            module.enable_group_offload(onload_device=cpu, offload_device=cpu, **how)
        module(**given, return_dict=False)[0].square().mean().backward()
    return torch.cat([one.grad.flatten() for one in module.parameters() if one.requires_grad])
