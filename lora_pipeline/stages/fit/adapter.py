"""The LoRA, or one of its kin, in the denoiser, and the LoRA in text encoders: put in, read out, put back. The only file of this stage that knows peft."""

import math
from collections.abc import Mapping
from typing import Any

from lora_pipeline.errors import TrainingError
from lora_pipeline.families import Family
from lora_pipeline.settings import FitSettings, NetworkType

_MARKS = ("lora_", "lokr_", "hada_")  # what peft's names of parameters begin with


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
    if settings.text_encoder_lr and not family.trained_texts:
        raise TrainingError(
            f"fit.text_encoder_lr {settings.text_encoder_lr:g}: the text encoders of {family.name} are not trained here: set it to 0"
        )
    if settings.text_encoder_2_lr is not None and len(family.trained_texts) < 2:
        raise TrainingError(
            f"fit.text_encoder_2_lr {settings.text_encoder_2_lr:g}: {family.name} has no second text encoder that is trained: leave it empty"
        )
    return family.text_targets if settings.learns_texts else ()


def inject(
    module: Any,
    targets: tuple[str, ...],
    dim: int,
    alpha: float,
    seed: int,
    dropout: float = 0.0,
    conv: tuple[int, float] | None = None,
    kind: NetworkType = "lora",
    factor: int = -1,
) -> dict[str, Any]:
    """Put a new LoRA, or one of its kin, into a denoiser or a text encoder, in place. It changes no answer yet.

    With s = alpha / dim, and ΔW = s · B A what it adds to a weight W (out × in, a convolution's last three axes taken as one):

    - lora: Hu et al. 2021, "LoRA". A is random (from the seed) and B zero.
    - dora: Liu et al. 2024, "DoRA: Weight-Decomposed Low-Rank Adaptation", eq. 5: W' = m · (W + ΔW) / ‖W + ΔW‖, the norm over what each
      output reads, and m, which begins as ‖W‖, learnt too.
    - loha: ΔW = s · (B₁ A₁) ⊙ (B₂ A₂), ⊙ number by number. Hyeon-Woo et al. 2022, "FedPara", proposition 1.
    - lokr: ΔW = s · C ⊗ (B A), ⊗ Kronecker's product. Yeh et al. 2024, "Navigating Text-To-Image Customization: From LyCORIS Fine-Tuning
      to Model Evaluation", section 3. Where the dim is at least half of what B A may be wide or high, one whole matrix stands for
      B A, and s is 1, as LyCORIS has it and as programs read its files.

    Args:
        module: the denoiser or encoder, its parameters frozen. Its random numbers are the CPU's, so that A is the same whatever trains it.
        targets: endings of the names of the modules that get a LoRA.
        dim: rank.
        alpha: numerator of the scale.
        seed: of A.
        dropout: share of x that is zeroed on its way to A (peft's; sd-scripts zeroes as great a share of A x).
        conv: rank and alpha of convolutions larger than 1×1; None: as of all others.
        kind: which of these.
        factor: how high and wide C is, at most and where it divides the weight's sides; -1: as near to B A's sides as they allow.

    Returns:
        The LoRA's float32 parameters by name: all that is trained.

    Raises:
        TrainingError: no module has such a name.
    """
    import torch
    from peft import LoHaConfig, LoKrConfig, LoraConfig, PeftConfig, inject_adapter_in_model

    wide = _wide(module, targets) if conv else ()
    ranks: dict[str, int] = dict.fromkeys(wide, conv[0]) if conv else {}
    alphas: dict[str, Any] = dict.fromkeys(wide, conv[1]) if conv else {}
    shared: dict[str, Any] = {
        "r": dim,
        "target_modules": list(targets),
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "lora_alpha" if kind in {"lora", "dora"} else "alpha": alpha,  # peft asks for whole ones, and takes any
    }
    config: PeftConfig
    match kind:
        case "lora" | "dora":
            config = LoraConfig(**shared, lora_dropout=dropout, use_dora=kind == "dora")
        case "loha":
            config = LoHaConfig(**shared)
        case "lokr":
            dims = {name: ranks.get(name, dim) for name in _targets(module, targets)}
            alphas.update(
                {name: rank for name, rank in dims.items() if _is_whole(module.get_submodule(name), rank, factor)}
            )
            config = LoKrConfig(**shared, decompose_factor=factor, init_weights="lycoris")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            inject_adapter_in_model(config, module)
        except ValueError as error:
            raise TrainingError(
                f"the base model's {type(module).__name__} has no module that a LoRA can be put on ({', '.join(targets)}): {error}"
            ) from error
        if kind == "loha":
            _as_lycoris_begins(module)
    for parameter in parameters(module).values():
        parameter.data = parameter.data.float()  # peft makes them in the base's own format
    return parameters(module)


def _targets(module: Any, targets: tuple[str, ...]) -> list[str]:
    """Names of the modules that these endings mean."""
    return [name for name, _ in module.named_modules() if name.endswith(tuple(f".{target}" for target in targets))]


def _wide(module: Any, targets: tuple[str, ...]) -> list[str]:
    """Names of the targets that are convolutions larger than 1×1."""
    return [
        name for name in _targets(module, targets) if max(getattr(module.get_submodule(name), "kernel_size", (1,))) > 1
    ]


def _is_whole(layer: Any, dim: int, factor: int) -> bool:
    """Whether peft, as LyCORIS, makes one matrix of a LoKr's B A in this layer."""
    from peft.tuners.lokr.layer import factorization

    out_by_in = [
        getattr(layer, f"{side}_features", None) or getattr(layer, f"{side}_channels") for side in ("out", "in")
    ]
    return dim >= max(factorization(side, factor)[1] for side in out_by_in) / 2


def _as_lycoris_begins(module: Any) -> None:
    """The first numbers of a LoHa as LyCORIS draws them (`LohaModule`), larger by far than peft's, so that a learning rate means the same."""
    import torch

    for name, parameter in parameters(module).items():
        matrix = name.split(".")[-2]
        spread = {"hada_w1_a": 0.1, "hada_w1_b": 1.0, "hada_w2_a": 0.0, "hada_w2_b": 1.0}[matrix]
        with torch.no_grad():
            parameter.copy_(torch.randn(parameter.shape) * spread)


def parameters(module: Any) -> dict[str, Any]:
    """The LoRA's parameters by name, in the module's order: what peft puts in, and nothing of the base."""
    return {name: one for name, one in module.named_parameters() if any(mark in name for mark in _MARKS)}


def leave_casts_to_autocast(module: Any) -> None:
    """Let layers hand the LoRA what they are given as it is, for use under torch.autocast alone.

    peft takes it to float32 first, the format of the LoRA's numbers, and autocast takes it back: the same bits, copied twice and kept for
    the way back once more (up to a tenth of all that is kept). Not for a DoRA, which reckons its norms in that format.
    """
    for layer in module.modules():
        if hasattr(layer, "cast_input_dtype_enabled"):
            layer.cast_input_dtype_enabled = False


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
