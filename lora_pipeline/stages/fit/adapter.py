"""The LoRA in the denoiser and in text encoders: put in, read out, put back. The only file of this stage that knows peft."""

import math
from collections.abc import Mapping
from typing import Any

from lora_pipeline.errors import TrainingError
from lora_pipeline.families import Family
from lora_pipeline.settings import FitSettings


def alpha_of(settings: FitSettings) -> float:
    """The alpha that scales the LoRA by alpha / dim, as every program that loads it will.

    Rank-stabilised (Kalajdzievski 2023, eq. 3) is a scale of alpha / √dim. That is said by an alpha √dim times as great, and not by
    peft's `use_rslora`, which a file cannot tell to programs that know dim and alpha alone.
    """
    return settings.network_alpha * (math.sqrt(settings.network_dim) if settings.rank_stabilised else 1)


def conv_alpha_of(settings: FitSettings) -> float:
    """As `alpha_of`, of the convolutions' LoRA."""
    return settings.network_conv_alpha * (math.sqrt(settings.network_conv_dim) if settings.rank_stabilised else 1)


def targets_of(family: Family, settings: FitSettings) -> tuple[str, ...]:
    """Endings of the names of the modules that get a LoRA. Raises TrainingError if convolutions are wanted where there are none."""
    if not settings.network_conv_dim:
        return family.lora_targets
    if not family.conv_targets:
        raise TrainingError(
            f"fit.network_conv_dim is for convolutions, and the denoiser of {family.name} has none: set it to 0"
        )
    return (*family.lora_targets, *family.conv_targets)


def text_targets_of(family: Family, settings: FitSettings) -> tuple[str, ...]:
    """As `targets_of`, of the text encoders; none if they are not trained. Raises TrainingError if they are to be and cannot."""
    if settings.text_encoder_lr and not family.text_targets:
        raise TrainingError(
            f"fit.text_encoder_lr {settings.text_encoder_lr:g}: the text encoders of {family.name} are not trained here: set it to 0"
        )
    return family.text_targets if settings.text_encoder_lr else ()


def inject(
    module: Any,
    targets: tuple[str, ...],
    dim: int,
    alpha: float,
    seed: int,
    dropout: float = 0.0,
    conv: tuple[int, float] | None = None,
    dora: bool = False,
) -> dict[str, Any]:
    """Put a new LoRA into a denoiser or a text encoder, in place.

    Hu et al. 2021, "LoRA": h = W x + (alpha / dim) · B A x, with A random (from the seed) and B zero, so the model is unchanged.

    Args:
        module: the denoiser or encoder, on the CPU (so that A is the same whatever trains it), its parameters frozen.
        targets: endings of the names of the modules that get a LoRA.
        dim: rank.
        alpha: numerator of the scale.
        seed: of A.
        dropout: share of x that is zeroed on its way to A (peft's; sd-scripts zeroes as great a share of A x).
        conv: rank and alpha of convolutions larger than 1×1; None: as of all others.
        dora: Liu et al. 2024, "DoRA: Weight-Decomposed Low-Rank Adaptation", eq. 5: W' = m · (W + ΔW) / ‖W + ΔW‖ with ΔW the LoRA, the
            norm over what each output reads, and m, which begins as ‖W‖, learnt too.

    Returns:
        The LoRA's float32 parameters by name: all that is trained.

    Raises:
        TrainingError: no module has such a name.
    """
    import torch
    from peft import LoraConfig, inject_adapter_in_model

    wide = _wide(module, targets) if conv else ()
    config = LoraConfig(
        r=dim,
        lora_alpha=alpha,  # type: ignore[arg-type]  # may be a float
        lora_dropout=dropout,
        target_modules=list(targets),
        rank_pattern=dict.fromkeys(wide, conv[0]) if conv else {},
        use_dora=dora,
        alpha_pattern=dict.fromkeys(wide, conv[1]) if conv else {},  # type: ignore[arg-type]  # as above
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            inject_adapter_in_model(config, module)
        except ValueError as error:
            raise TrainingError(
                f"the base model's {type(module).__name__} has no module that a LoRA can be put on ({', '.join(targets)}): {error}"
            ) from error
    return parameters(module)


def _wide(module: Any, targets: tuple[str, ...]) -> list[str]:
    """Names of the targets that are convolutions larger than 1×1."""
    return [
        name
        for name, one in module.named_modules()
        if name.endswith(tuple(f".{target}" for target in targets)) and max(getattr(one, "kernel_size", (1,))) > 1
    ]


def parameters(module: Any) -> dict[str, Any]:
    """The LoRA's parameters by name, in the module's order."""
    return {name: parameter for name, parameter in module.named_parameters() if "lora_" in name}


def put_back(own: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Overwrite the LoRA's parameters with saved ones. Raises TrainingError if names or shapes differ."""
    import torch

    if {name: tuple(one.shape) for name, one in own.items()} != {
        name: tuple(one.shape) for name, one in values.items()
    }:
        raise TrainingError("the saved state is of another LoRA; delete the run's state folder to begin again")
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(values[name])
