"""What a look draws: the same from the same clock, and spread as its settings say."""

import math
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest

from lora_pipeline.families import NoiseSchedule
from lora_pipeline.settings import FitSettings
from lora_pipeline.stages.fit.noise import draw, noise_level, timestep_of

EVEN = tuple((at + 1) / 1000 for at in range(1000))
DIFFUSION = NoiseSchedule("epsilon", tuple(math.sqrt(1 - level**2) for level in EVEN), EVEN)
FLOW = NoiseSchedule("flow", tuple(1 - level for level in EVEN), EVEN)
ONE_SIGMA = NormalDist().cdf(1)


def drawn(seen, shape=(4, 8, 8), latents=None, schedule=DIFFUSION, **settings):
    return draw(FitSettings(**settings), schedule, seen, np.zeros(shape, np.float32) if latents is None else latents)


def test_noise_is_a_function_of_seed_and_clock():
    first, same = (drawn(7, noise_offset=0.1) for _ in range(2))
    assert first.timestep == same.timestep
    assert np.array_equal(first.noise, same.noise)
    for other in (drawn(7, seed=43, noise_offset=0.1), drawn(8, noise_offset=0.1)):
        assert not np.array_equal(first.noise, other.noise)


def test_noise_is_normal_and_timesteps_are_even():
    looks = [drawn(seen, seed=0) for seen in range(2000)]
    noise = np.stack([one.noise for one in looks])
    assert abs(noise.mean()) < 0.01
    assert abs(noise.std() - 1) < 0.01
    counts = np.histogram([one.timestep for one in looks], bins=10, range=(0, 1000))[0]
    assert counts.min() > 150
    assert counts.sum() == 2000


def test_the_noise_offset_moves_whole_channels():
    plain, offset = (drawn(5, (4, 64, 64), noise_offset=strength).noise for strength in (0.0, 0.5))
    moved = offset - plain
    assert np.allclose(moved, moved[:, :1, :1], atol=1e-6)
    assert moved.std() > 0.05


@pytest.mark.parametrize(
    ("scale", "strengths"), [(0.0, [0.1, 0.1, 0.1]), (0.2, [0.1, 0.3, 0.5]), (-0.08, [0.1, 0.02, 0.0])]
)
def test_the_adaptive_offset_grows_with_a_channels_absolute_mean_and_is_never_negative(scale, strengths):
    latents = np.ones((3, 4, 4), np.float32) * np.array([0, 1, -2], np.float32)[:, None, None]
    plain, unit, told = (
        drawn(3, latents=latents, noise_offset=strength, adaptive_noise_scale=by).noise
        for strength, by in ((0.0, 0.0), (1.0, 0.0), (0.1, scale))
    )
    assert ((told - plain) / (unit - plain))[:, 0, 0].tolist() == pytest.approx(strengths, abs=1e-5)


def test_a_random_strength_lies_evenly_between_nothing_and_the_offset():
    shares = []
    for seen in range(400):
        plain, full, told = (
            drawn(seen, (1, 1, 1), noise_offset=strength, noise_offset_random_strength=random).noise.item()
            for strength, random in ((0.0, False), (0.5, False), (0.5, True))
        )
        shares.append((told - plain) / (full - plain))
    assert min(shares) > -0.01
    assert max(shares) < 1.01
    assert np.histogram(shares, bins=4, range=(-0.01, 1.01))[0].min() > 70


@pytest.mark.parametrize(
    ("share", "settings", "level"),
    [
        (0.3, {}, 0.3),
        (0.5, {"timestep_sampling": "sigmoid"}, 0.5),
        (ONE_SIGMA, {"timestep_sampling": "sigmoid"}, 0.731059),
        (ONE_SIGMA, {"timestep_sampling": "sigmoid", "sigmoid_scale": 2}, 0.880797),
        (0.5, {"timestep_sampling": "shift"}, 0.75),  # 3 × 0.5 / (1 + 2 × 0.5)
        (ONE_SIGMA, {"timestep_sampling": "shift"}, 0.890768),  # 3 × 0.731059 / (1 + 2 × 0.731059)
        (0.5, {"timestep_sampling": "shift", "discrete_flow_shift": 1}, 0.5),
        (0.5, {"timestep_sampling": "logit_normal", "discrete_flow_shift": 1}, 0.5),
        (0.5, {"timestep_sampling": "logit_normal", "discrete_flow_shift": 1, "logit_mean": math.log(3)}, 0.25),
        (0.5, {"timestep_sampling": "logit_normal", "logit_mean": math.log(3)}, 0.5),  # 0.25, shifted by 3
        (ONE_SIGMA, {"timestep_sampling": "logit_normal", "discrete_flow_shift": 1, "logit_std": 2}, 1 - 0.880797),
    ],
)
def test_noise_levels_are_sd_scripts(share, settings, level):
    assert noise_level(share, FitSettings(**settings), own_shift=3.0) == pytest.approx(level, abs=1e-6)


def test_a_level_becomes_the_timestep_that_is_nearest_however_the_base_spaces_them():
    shift = FitSettings(timestep_sampling="shift", discrete_flow_shift=3)
    assert timestep_of(0.5, shift, FLOW) == 749  # σ = 0.75
    shifted = tuple(3 * level / (1 + 2 * level) for level in EVEN)
    assert timestep_of(0.5, shift, NoiseSchedule("flow", tuple(1 - one for one in shifted), shifted)) == 499


def test_a_shift_that_nobody_names_is_the_bases_own():
    own = replace(FLOW, shift=3.0)
    assert timestep_of(0.5, FitSettings(timestep_sampling="shift"), own) == 749
    assert timestep_of(0.5, FitSettings(timestep_sampling="shift"), FLOW) == 499
    assert timestep_of(0.5, FitSettings(timestep_sampling="shift", discrete_flow_shift=1), own) == 499


@pytest.mark.parametrize("sampling", ["uniform", "sigmoid", "shift", "logit_normal"])
def test_every_sampling_draws_timesteps_that_there_are(sampling):
    settings = FitSettings(timestep_sampling=sampling)
    assert all(0 <= timestep_of(share, settings, FLOW) <= 999 for share in (0.0, 1e-300, 0.5, 1 - 2**-53))


def test_what_is_switched_on_moves_no_other_number():
    plain = drawn(9, schedule=FLOW)
    other = drawn(9, schedule=FLOW, timestep_sampling="sigmoid", sigmoid_scale=3, noise_offset_random_strength=True)
    assert np.array_equal(plain.noise, other.noise)
    assert plain.timestep != other.timestep
