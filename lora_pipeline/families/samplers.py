"""Samplers by the names that trainers know, put into a stock pipeline in place of its own."""

from typing import Any

from lora_pipeline.errors import ModelError

OWN = "base"
"""The sampler that the base model comes with."""
SAMPLERS = {
    "ddim": "DDIMScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler_a": "EulerAncestralDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "dpmsolver++": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
}
"""`grade.sampler` (names of sd-scripts' `--sample_sampler`, where it has them) → diffusers' class."""


def sample_with(pipeline: Any, sampler: str) -> None:
    """Give a pipeline another sampler, with the base model's own schedule of noise and kind of prediction.

    Args:
        pipeline: diffusers'; its `scheduler` is replaced.
        sampler: `OWN`, which changes nothing, or one of `SAMPLERS`.

    Raises:
        ModelError: none of these can stand in for the base model's own, by diffusers' word: it matches flows.
    """
    if sampler == OWN:
        return
    import diffusers

    own = pipeline.scheduler
    wanted = getattr(diffusers, SAMPLERS[sampler])
    if wanted not in own.compatibles and not isinstance(own, wanted):
        raise ModelError(
            f"grade.sampler '{sampler}' cannot draw with this base model, whose own is {type(own).__name__}; leave it at '{OWN}'"
        )
    pipeline.scheduler = wanted.from_config(own.config)
