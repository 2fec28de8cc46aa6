"""The optimisers, each by the library that owns it, as kohya-ss/sd-scripts' `get_optimizer` names them."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from lora_pipeline.errors import TrainingError
from lora_pipeline.settings import FitSettings

_PACKAGES = {"Prodigy": "prodigyopt", "Lion": "lion-pytorch", "AdamWScheduleFree": "schedulefree"}


def optimizer_of(settings: FitSettings, parameters: Sequence[Any], device: str) -> Any:
    """The settings' optimiser over these parameters, a torch optimiser; its rate is set anew before each step.

    Args:
        settings: which, rate, weight decay; for AdamWScheduleFree the warm-up too.
        parameters: all that is trained, or torch's groups of it where their rates differ.
        device: where they lie: "cuda", "mps" or "cpu".

    Raises:
        TrainingError: the library is not installed, or its optimiser does not run on the device.
    """
    kind = settings.optimizer_type
    given: dict[str, Any] = {"lr": settings.unet_lr, "weight_decay": settings.weight_decay}
    match kind:
        case "AdamW":
            import torch

            # Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization"
            return torch.optim.AdamW(parameters, **given, fused=device in {"cpu", "cuda"})
        case "AdamW8bit":
            if device not in {"cpu", "cuda"}:
                raise TrainingError(
                    f"fit.optimizer_type AdamW8bit: bitsandbytes has no 8-bit moments on this device ({device}); set it to AdamW"
                )
            # Dettmers et al. 2022, "8-bit Optimizers via Block-wise Quantization"
            return _library("bitsandbytes.optim", kind).AdamW8bit(parameters, **given)
        case "Adafactor":
            # Shazeer and Stern 2018. Its own rate (section 8) is off, so that unet_lr and the course mean what they say.
            fixed = {"scale_parameter": False, "relative_step": False, "warmup_init": False}
            return _library("transformers.optimization", kind).Adafactor(parameters, **given, **fixed)
        case "Prodigy":
            # Mishchenko and Defazio 2024, "Prodigy: An Expeditiously Adaptive Parameter-Free Learner"
            return _library("prodigyopt", kind).Prodigy(parameters, **given)
        case "Lion":
            # Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms"
            return _library("lion_pytorch", kind).Lion(parameters, **given)
        case "AdamWScheduleFree":
            # Defazio et al. 2024, "The Road Less Scheduled"
            made = _library("schedulefree", kind).AdamWScheduleFree(
                parameters, **given, warmup_steps=settings.lr_warmup_steps
            )
            made.train()
            return made


@contextmanager
def settled(optimizer: Any) -> Generator[None]:
    """The parameters as they are to be saved and drawn with: for a schedule-free optimiser its average, else as they stand."""
    has_average = callable(getattr(optimizer, "eval", None))
    if has_average:
        optimizer.eval()
    try:
        yield
    finally:
        if has_average:
            optimizer.train()


def _library(name: str, kind: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        package = _PACKAGES.get(kind, name.split(".")[0])
        raise TrainingError(
            f"fit.optimizer_type {kind} needs the package {package}, which cannot be imported ({error}): install {package}, or lora-pipeline[optimizers]"
        ) from error
