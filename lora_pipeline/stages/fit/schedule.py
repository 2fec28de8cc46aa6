"""The course of the learning rate, told by the one clock: images seen.

Nothing is counted here, so there is no counter that a resumed run could leave at the end of its course (as in
kohya-ss/sd-scripts#141, where a resumed cosine with restarts trained at rate 0).
"""

import math

from lora_pipeline.settings import FitSettings

POLYNOMIAL_END = 1e-7  # where diffusers' polynomial ends, which is the one that sd-scripts uses


def learning_rate(settings: FitSettings, images_seen: int, total_images: int) -> float:
    """The learning rate of a step: with full batches the numbers of diffusers' `optimization.get_scheduler`, as in sd-scripts.

    Args:
        settings: peak, course, cycles, power; a warm-up of `lr_warmup_steps` steps of full batches, however many processes there are
            (as in diffusers' own scripts; sd-scripts counts a step once a process, and so warms up in as many times fewer).
        images_seen: before the step.
        total_images: of the whole run.
    """
    peak = settings.unet_lr
    if settings.optimizer_type == "AdamWScheduleFree":
        return peak  # it warms up by itself, and its average stands for the course
    full_step = settings.batch_size * settings.num_processes * settings.gradient_accumulation_steps
    warm_up = settings.lr_warmup_steps * full_step
    if images_seen < warm_up:
        return peak * images_seen / warm_up
    done = min(1.0, (images_seen - warm_up) / max(1, total_images - warm_up))
    match settings.lr_scheduler:
        case "constant":
            return peak
        case "linear":
            return peak * (1 - done)
        case "cosine":
            return _cosine(peak, done)
        case "cosine_with_restarts":
            # Loshchilov and Hutter 2017, "SGDR", eq. 5, with η_min = 0 and cycles of equal length
            return _cosine(peak, 1.0 if done >= 1.0 else (settings.lr_scheduler_num_cycles * done) % 1.0)
        case "polynomial":
            end = min(peak, POLYNOMIAL_END)
            return end + (peak - end) * (1 - done) ** settings.lr_scheduler_power


def _cosine(peak: float, within: float) -> float:
    return peak * 0.5 * (1 + math.cos(math.pi * within))
