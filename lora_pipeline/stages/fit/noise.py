"""What is random in a step, as a function of the run's seed and of the images seen: a resumed run needs no saved random state.

After NVlabs/edm2. The same numbers on every device, since they are drawn by numpy on the CPU.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Draw:
    """What one look at one picture draws: a timestep, and noise of its latents' shape (C×h×w, float32)."""

    timestep: int
    noise: NDArray[np.float32]


def draw(seed: int, images_seen: int, shape: tuple[int, int, int], timesteps: int, noise_offset: float) -> Draw:
    """Draw for the look that is number `images_seen` of the run.

    Args:
        seed: of the run.
        images_seen: before this look; 0 for the first.
        shape: of the latents, C×h×w.
        timesteps: how many there are; one is drawn, all as likely.
        noise_offset: strength of what is added to all of a channel at once.
    """
    rng = np.random.default_rng((seed, 0, images_seen))
    timestep = int(rng.random() * timesteps)
    noise = rng.standard_normal(shape, dtype=np.float32)
    if noise_offset:
        # Guttenberg 2023, "Diffusion with Offset Noise"
        noise += np.float32(noise_offset) * rng.standard_normal((shape[0], 1, 1), dtype=np.float32)
    return Draw(timestep, noise)
