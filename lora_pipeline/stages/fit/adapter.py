"""The LoRA in the denoiser: put in, read out, put back. The only file of this stage that knows peft."""

from collections.abc import Mapping
from typing import Any

from lora_pipeline.errors import TrainingError


def inject(module: Any, targets: tuple[str, ...], dim: int, alpha: float, seed: int) -> dict[str, Any]:
    """Put a new LoRA into a denoiser, in place.

    Hu et al. 2021, "LoRA": h = W x + (alpha / dim) · B A x, with A random (from the seed) and B zero, so the model is unchanged.

    Args:
        module: the denoiser, on the CPU (so that A is the same whatever trains it), its parameters frozen.
        targets: endings of the names of the modules that get a LoRA.
        dim: rank.
        alpha: numerator of the scale.
        seed: of A.

    Returns:
        The LoRA's float32 parameters by name: all that is trained.

    Raises:
        TrainingError: no module has such a name.
    """
    import torch
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(r=dim, lora_alpha=alpha, target_modules=list(targets))  # type: ignore[arg-type]  # alpha may be a float
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            inject_adapter_in_model(config, module)
        except ValueError as error:
            raise TrainingError(
                f"the base model's denoiser has no module that a LoRA can be put on ({', '.join(targets)}): {error}"
            ) from error
    return parameters(module)


def parameters(module: Any) -> dict[str, Any]:
    """The LoRA's parameters by name, in the module's order."""
    return {name: parameter for name, parameter in module.named_parameters() if "lora_" in name}


def put_back(module: Any, values: Mapping[str, Any]) -> None:
    """Overwrite the LoRA's parameters with saved ones. Raises TrainingError if names or shapes differ."""
    import torch

    own = parameters(module)
    if {name: tuple(one.shape) for name, one in own.items()} != {
        name: tuple(one.shape) for name, one in values.items()
    }:
        raise TrainingError("the saved state is of another LoRA; delete the run's state folder to begin again")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(values[name])
