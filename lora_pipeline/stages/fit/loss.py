"""The loss. It knows what kind of answer a model gives, never which model it holds.

Shape legend: B pictures, C latent channels, h × w latent cells. x_0 latents, ε noise, x_t noisy latents, all B×C×h×w; α and σ
of x_t = α · x_0 + σ · ε, B numbers each; SNR = α² / σ².
"""

from typing import TYPE_CHECKING

from lora_pipeline.families import PredictionKind

if TYPE_CHECKING:
    from torch import Tensor


def noisy_latents(latents: "Tensor", noise: "Tensor", alpha: "Tensor", sigma: "Tensor") -> "Tensor":
    """x_t, B×C×h×w."""
    # Ho et al. 2020, "Denoising Diffusion Probabilistic Models", eq. 4; for a flow, Lipman et al. 2023, eq. 22
    return _each(alpha) * latents + _each(sigma) * noise


def target_of(kind: PredictionKind, latents: "Tensor", noise: "Tensor", alpha: "Tensor", sigma: "Tensor") -> "Tensor":
    """What the model should answer, B×C×h×w."""
    match kind:
        case "epsilon":
            return noise
        case "v_prediction":
            # Salimans and Ho 2022, "Progressive Distillation for Fast Sampling of Diffusion Models", section 4
            return _each(alpha) * noise - _each(sigma) * latents
        case "flow":
            # Esser et al. 2024, "Scaling Rectified Flow Transformers", eq. 6 with z_t = (1 − t) x_0 + t ε
            return noise - latents


def min_snr_weight(kind: PredictionKind, alpha: "Tensor", sigma: "Tensor", gamma: float) -> "Tensor":
    """The weight of each sample's loss, B numbers; 1 for a gamma of 0."""
    import torch

    if gamma == 0:
        return torch.ones_like(alpha)
    snr = (alpha / sigma.clamp(min=1e-6)).square().clamp(min=1e-8)
    # Hang et al. 2023, "Efficient Diffusion Training via Min-SNR Weighting Strategy", section 3.4: min(SNR, γ) weighs an error
    # of x_0; an error of ε is one of x_0 by σ²/α² = 1/SNR, an error of v by σ² = 1/(SNR + 1), an error of a flow by σ².
    clipped = snr.clamp(max=gamma)
    match kind:
        case "epsilon":
            return clipped / snr
        case "v_prediction":
            return clipped / (snr + 1)
        case "flow":
            return clipped * sigma.square()


def sample_losses(answer: "Tensor", target: "Tensor", visible: "Tensor") -> "Tensor":
    """Mean squared error of each sample over what is visible, B numbers; its derivative is exactly 0 where nothing is.

    Args:
        answer, target: B×C×h×w.
        visible: B×1×h×w, 1 where the loss counts and 0 where it does not; at least one 1 a sample.
    """
    squares = (answer.float() - target.float()).square() * visible
    return squares.sum(dim=(1, 2, 3)) / (visible.sum(dim=(1, 2, 3)) * answer.shape[1])


def _each(numbers: "Tensor") -> "Tensor":
    """B numbers as B×1×1×1."""
    return numbers.view(-1, 1, 1, 1)
