"""The loss against its definitions."""

import pytest

torch = pytest.importorskip("torch")

from lora_pipeline.stages.fit.loss import (  # noqa: E402
    debiased_weight,
    face_weights,
    huber_threshold,
    latent_losses,
    min_snr_weight,
    noisy_latents,
    sample_losses,
    target_of,
)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


ALPHA = torch.tensor([0.99, 0.7, 0.1], dtype=torch.float64)
SIGMA = (1 - ALPHA**2).sqrt()


@pytest.mark.parametrize("loss_type", ["l2", "huber", "smooth_l1"])
def test_the_derivative_under_the_mask_is_exactly_nothing(loss_type):
    answer = random(2, 4, 8, 8).float().requires_grad_()
    visible = torch.ones(2, 1, 8, 8)
    visible[0, 0, 2:5, 3:] = 0
    errors = latent_losses(answer, random(2, 4, 8, 8, seed=1).float(), loss_type, torch.tensor([0.1, 1.0]))
    sample_losses(errors, visible).sum().backward()
    hidden = (visible == 0).expand(2, 4, 8, 8)
    assert (answer.grad[hidden] == 0).all()
    assert (answer.grad[~hidden] != 0).all()


def test_what_is_hidden_does_not_dilute_the_loss():
    answer, target, visible = torch.full((2, 4, 8, 8), 3.0), torch.ones(2, 4, 8, 8), torch.ones(2, 1, 8, 8)
    target[0, :, 4:] = 100
    visible[0, :, 4:] = 0
    assert sample_losses(latent_losses(answer, target), visible).tolist() == [4.0, 4.0]


def test_without_a_mask_it_is_the_mean_squared_error():
    answer, target = random(3, 4, 6, 10), random(3, 4, 6, 10, seed=1)
    told = sample_losses(latent_losses(answer, target), torch.ones(3, 1, 6, 10))
    wanted = [
        torch.nn.functional.mse_loss(one.float(), other.float()) for one, other in zip(answer, target, strict=True)
    ]
    assert torch.allclose(told.float(), torch.stack(wanted))


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [("epsilon", lambda snr: min(snr, 5) / snr), ("v_prediction", lambda snr: min(snr, 5) / (snr + 1))],
)
def test_min_snr_weights_are_the_papers(kind, wanted):
    snr = (ALPHA / SIGMA) ** 2
    assert min_snr_weight(kind, ALPHA, SIGMA, 5.0).tolist() == pytest.approx([wanted(float(one)) for one in snr])


def test_no_gamma_is_no_weight():
    assert min_snr_weight("epsilon", ALPHA, SIGMA, 0.0).tolist() == [1, 1, 1]


def test_pure_noise_has_a_finite_weight():
    for kind in ("epsilon", "v_prediction", "flow"):
        assert torch.isfinite(min_snr_weight(kind, torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0]), 5.0)).all()


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "flow"])
def test_one_error_of_the_picture_costs_the_same_in_every_kind(kind):
    """min-SNR weighs errors of x_0: whichever way a model says them, the weighted loss is min(SNR, γ) · |error of x_0|²."""
    alpha, sigma = (
        (ALPHA, SIGMA)
        if kind != "flow"
        else (torch.tensor([0.9, 0.5, 0.1], dtype=torch.float64), torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64))
    )
    latents, noise, wrong = random(3, 4, 2, 2), random(3, 4, 2, 2, seed=1), random(3, 4, 2, 2, seed=2)
    noisy = noisy_latents(latents, noise, alpha, sigma)
    each = alpha.view(-1, 1, 1, 1), sigma.view(-1, 1, 1, 1)
    believed = (noisy - each[0] * wrong) / each[1]  # the noise, if the picture were `wrong`
    answer = target_of(kind, wrong, believed, alpha, sigma)
    squares = (answer - target_of(kind, latents, noise, alpha, sigma)).square().mean(dim=(1, 2, 3))
    weighted = squares * min_snr_weight(kind, alpha, sigma, 5.0)
    snr = (alpha / sigma) ** 2
    assert torch.allclose(weighted, snr.clamp(max=5.0) * (wrong - latents).square().mean(dim=(1, 2, 3)))


def test_v_is_the_papers():
    latents, noise = random(3, 4, 2, 2), random(3, 4, 2, 2, seed=1)
    noisy = noisy_latents(latents, noise, ALPHA, SIGMA)
    v = target_of("v_prediction", latents, noise, ALPHA, SIGMA)
    each = ALPHA.view(-1, 1, 1, 1), SIGMA.view(-1, 1, 1, 1)
    assert torch.allclose(each[0] * noisy - each[1] * v, latents)  # x_0 = α x_t − σ v


# (error, threshold, huber, smooth_l1) by hand from `conditional_loss` of sd-scripts: 2c (√(e² + c²) − c) and 2 (√(e² + c²) − c)
WORKED = [(1.2, 0.5, 0.8, 1.6), (0.3, 0.4, 0.08, 0.2), (0.75, 1.0, 0.5, 0.5), (0.0, 0.1, 0.0, 0.0)]


def test_huber_and_smooth_l1_are_sd_scripts():
    errors = torch.tensor([one[0] for one in WORKED]).view(-1, 1, 1, 1)
    threshold = torch.tensor([one[1] for one in WORKED])
    for at, loss_type in ((2, "huber"), (3, "smooth_l1")):
        told = latent_losses(errors, torch.zeros_like(errors), loss_type, threshold).flatten().tolist()
        assert told == pytest.approx([one[at] for one in WORKED], abs=1e-6)


def test_thresholds_are_sd_scripts():
    """ᾱ of 0.8, 0.5 and 0.1 are noise levels √((1 − ᾱ) / ᾱ) of 0.5, 1 and 3: 0.9 / 1.5² + 0.1 = 0.5, and so on."""
    alpha, timesteps = torch.tensor([0.8, 0.5, 0.1]).sqrt(), torch.tensor([0, 250, 500])
    sigma = (1 - alpha**2).sqrt()
    wanted = {"snr": [0.5, 0.325, 0.15625], "exponential": [1, 10**-0.25, 10**-0.5], "constant": [0.1] * 3}
    for schedule, numbers in wanted.items():
        told = huber_threshold(schedule, 0.1, timesteps, 1000, alpha, sigma).tolist()
        assert told == pytest.approx(numbers, rel=1e-5), schedule


def test_debiased_weights_are_sd_scripts():
    """SNR of 4, 1/9 and 9999, the last bounded by 1000."""
    alpha = torch.tensor([0.8, 0.1, 0.9999], dtype=torch.float64).sqrt()
    sigma = (1 - alpha**2).sqrt()
    assert debiased_weight("epsilon", alpha, sigma).tolist() == pytest.approx([1 / 2, 3, 1000**-0.5])
    assert debiased_weight("v_prediction", alpha, sigma).tolist() == pytest.approx([1 / 5, 9 / 10, 1 / 1001])


def test_a_face_counts_as_often_as_asked_and_a_cell_on_its_edge_by_its_share():
    """32 × 24 pixels in 4 × 3 cells: the box holds the second cell of the second row, half of the one beside it, and a quarter row below."""
    told = face_weights((8, 8, 20, 18), (32, 24), (3, 4), 5.0)
    assert told.tolist() == [[[1, 1, 1, 1], [1, 5, 3, 1], [1, 2, 1.5, 1]]]
    assert face_weights(None, (32, 24), (3, 4), 5.0).tolist() == torch.ones(1, 3, 4).tolist()


def test_a_face_that_counts_four_times_by_hand():
    """Errors of 3 in the face's 2 cells, of 1 in 5 others, and of 100 in a hidden one: (4 · 2 · 9 + 5 · 1) / (4 · 2 + 5)."""
    answer = torch.ones(1, 4, 2, 4)
    answer[:, :, 0, :2] = 3
    answer[:, :, 1, 3] = 100
    visible = torch.ones(1, 1, 2, 4)
    visible[..., 1, 3] = 0
    weighed = visible * face_weights((0, 0, 16, 8), (32, 16), (2, 4), 4.0)
    assert sample_losses(latent_losses(answer, torch.zeros_like(answer)), weighed).tolist() == pytest.approx([77 / 13])


def test_what_is_hidden_stays_hidden_in_a_face_that_is_weighed():
    answer = random(1, 4, 4, 4).float().requires_grad_()
    visible = torch.ones(1, 1, 4, 4)
    visible[..., 1, 1] = 0
    weighed = visible * face_weights((0, 0, 24, 24), (32, 32), (4, 4), 10.0)
    sample_losses(latent_losses(answer, random(1, 4, 4, 4, seed=1).float()), weighed).sum().backward()
    assert (answer.grad[..., 1, 1] == 0).all()
    assert (answer.grad != 0).sum() == 4 * 15
