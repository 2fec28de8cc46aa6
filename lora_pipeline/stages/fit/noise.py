"""What is random in a step, as a function of the run's seed and of the images seen: a resumed run needs no saved random state.

After NVlabs/edm2. The same numbers on every device, since they are drawn by numpy on the CPU.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from lora_pipeline.families import NoiseSchedule
from lora_pipeline.settings import FitSettings

HELD_OUT_TIMESTEPS = 4


@dataclass(frozen=True)
class Draw:
    """What one look at one picture draws: a timestep, and noise of its latents' shape (C×h×w, float32)."""

    timestep: int
    noise: NDArray[np.float32]


def draw(settings: FitSettings, schedule: NoiseSchedule, images_seen: int, latents: NDArray[np.float32]) -> Draw:
    """Draw for the look that is number `images_seen` of the run.

    What is switched on or off in the settings moves no other number: each comes from its own place in the stream.

    Args:
        settings: seed, noise offset, timestep sampling.
        schedule: whose timesteps are drawn.
        images_seen: before this look; 0 for the first.
        latents: of the picture, C×h×w.
    """
    rng = np.random.default_rng((settings.seed, 0, images_seen))
    timestep = timestep_of(rng.random(), settings, schedule)
    noise = rng.standard_normal(latents.shape, dtype=np.float32)
    if settings.noise_offset:
        # Guttenberg 2023, "Diffusion with Offset Noise"
        offset = rng.standard_normal((latents.shape[0], 1, 1), dtype=np.float32)
        noise += _offset_strength(settings, rng.random(), latents) * offset
    return Draw(timestep, noise)


def held_out_draws(schedule: NoiseSchedule, picture: int, latents: NDArray[np.float32]) -> list[Draw]:
    """What a picture that is kept aside is always asked: an even grid of timesteps, each with its noise.

    No setting moves them, so epochs compare, and runs of other seeds too.

    Args:
        schedule: whose timesteps.
        picture: its number among those kept aside.
        latents: of the picture, C×h×w.
    """
    draws: list[Draw] = []
    for at in range(HELD_OUT_TIMESTEPS):
        timestep = int((at + 0.5) / HELD_OUT_TIMESTEPS * len(schedule.sigmas))
        rng = np.random.default_rng((0, 4, picture, at))  # places 0 to 3 of a stream are training's
        draws.append(Draw(timestep, rng.standard_normal(latents.shape, dtype=np.float32)))
    return draws


def timestep_of(share: float, settings: FitSettings, schedule: NoiseSchedule) -> int:
    """The timestep that is as far into the settings' distribution as `share` (0 to 1, drawn evenly).

    A diffusion's are all as likely. A flow's noise level σ (0 picture, 1 noise) is drawn as `get_noisy_model_input_and_timesteps`
    of sd-scripts' flux_train_utils.py does, and the timestep whose σ is nearest is taken, however the base spaces them.
    """
    if schedule.kind != "flow":
        return int(share * len(schedule.sigmas))
    level = noise_level(share, settings, schedule.shift)
    return int(np.abs(np.asarray(schedule.sigmas) - level).argmin())


def noise_level(share: float, settings: FitSettings, own_shift: float) -> float:
    """The σ of a flow, 0 to 1, below which `share` of all draws lie (for `logit_normal`: above which).

    `own_shift` is the base model's, for settings that name none.
    """
    shift = settings.discrete_flow_shift or own_shift
    if settings.timestep_sampling == "uniform":
        return share
    normal = NormalDist().inv_cdf(min(max(share, 1e-12), 1 - 1e-12))  # an even number's normal one
    match settings.timestep_sampling:
        case "sigmoid":
            return _sigmoid(settings.sigmoid_scale * normal)
        case "shift":
            return _shifted(_sigmoid(settings.sigmoid_scale * normal), shift)
        case "logit_normal":
            # Esser et al. 2024, eq. 19. sd-scripts, as diffusers, counts timesteps from the noisy end, so its mean has the sign
            # opposite to the paper's; and it takes σ from a scheduler that is shifted.
            drawn = _sigmoid(settings.logit_mean + settings.logit_std * normal)
            return _shifted(1 - drawn, shift)


def _shifted(level: float, shift: float) -> float:
    # Esser et al. 2024, "Scaling Rectified Flow Transformers", eq. 23, with shift = sqrt(m / n)
    return shift * level / (1 + (shift - 1) * level)


def _sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def _offset_strength(settings: FitSettings, share: float, latents: NDArray[np.float32]) -> NDArray[np.float32]:
    """By channel, C×1×1: `apply_noise_offset` of sd-scripts, which draws the random strength for a batch, here for a look."""
    strength = settings.noise_offset * (share if settings.noise_offset_random_strength else 1.0)
    means = np.abs(latents.mean(axis=(1, 2), keepdims=True))
    return np.maximum(strength + settings.adaptive_noise_scale * means, 0).astype(np.float32)
