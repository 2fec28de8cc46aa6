"""The course of the learning rate, told by the one clock: images seen."""

import math

from lora_pipeline.settings import FitSettings


def learning_rate(settings: FitSettings, images_seen: int, total_images: int) -> float:
    """The learning rate of a step.

    Args:
        settings: peak, course, cycles; a warm-up of `lr_warmup_steps` full batches.
        images_seen: before the step.
        total_images: of the whole run.
    """
    peak = settings.unet_lr
    warm_up = settings.lr_warmup_steps * settings.batch_size
    if images_seen < warm_up:
        return peak * images_seen / warm_up
    done = min(1.0, (images_seen - warm_up) / max(1, total_images - warm_up))
    match settings.lr_scheduler:
        case "constant":
            return peak
        case "cosine":
            cycles = 1
        case "cosine_with_restarts":
            cycles = settings.lr_scheduler_num_cycles
    # Loshchilov and Hutter 2017, "SGDR", eq. 5, with η_min = 0 and cycles of equal length
    within = 1.0 if done >= 1.0 else (cycles * done) % 1.0
    return peak * 0.5 * (1 + math.cos(math.pi * within))
