"""The loss. It knows what kind of answer a model gives, never which model it holds.

Its order is that of kohya-ss/sd-scripts (`process_batch` in train_network.py): per latent → mask → mean of each sample → × prior
weight → min-SNR → debiased estimation → mean of the batch. One thing differs on purpose: the mean is over what the mask shows, in
which a face may count several times.

Shape legend: B pictures, C latent channels, h × w latent cells. x_0 latents, ε noise, x_t noisy latents, all B×C×h×w; α and σ
of x_t = α · x_0 + σ · ε, B numbers each; SNR = α² / σ².
"""

import math
from typing import TYPE_CHECKING, Literal

from lora_pipeline.families import PredictionKind
from lora_pipeline.records import Box

if TYPE_CHECKING:
    from torch import Tensor

LossType = Literal["l2", "huber", "smooth_l1"]
HuberSchedule = Literal["snr", "exponential", "constant"]


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


def debiased_weight(kind: PredictionKind, alpha: "Tensor", sigma: "Tensor") -> "Tensor":
    """The debiased estimation weight of each sample's loss, B numbers; the kind is no flow."""
    snr = (alpha / sigma.clamp(min=1e-6)).square()
    # Yu et al. 2024, "Debias the Training of Diffusion Models", eq. 9; bounded by 1000, and for v divided as well by SNR + 1
    # in place of its root, as `apply_debiased_estimation` of sd-scripts does.
    bounded = snr.clamp(min=1e-8, max=1000.0)
    return 1 / (bounded + 1) if kind == "v_prediction" else bounded.rsqrt()


def huber_threshold(
    schedule: HuberSchedule, c: float, timesteps: "Tensor", count: int, alpha: "Tensor", sigma: "Tensor"
) -> "Tensor":
    """The error at which huber and smooth_l1 go from square to straight, B numbers: c to 1.

    `get_huber_threshold_if_needed` of sd-scripts (its `huber_scale` is 1, which is its default).

    Args:
        schedule: `constant` is c; the others fall from 1 without noise to c in noise alone.
        c: 0 to 1.
        timesteps: B whole numbers.
        count: how many timesteps the noise schedule has.
        alpha, sigma: of the timesteps, B numbers each.
    """
    import torch

    match schedule:
        case "constant":
            return torch.full_like(alpha, c)
        case "exponential":
            return torch.exp(math.log(c) / count * timesteps)
        case "snr":
            # σ / α is the noise level k-diffusion calls sigma: sqrt((1 − ᾱ) / ᾱ)
            return (1 - c) / (1 + sigma / alpha.clamp(min=1e-6)).square() + c


def latent_losses(
    answer: "Tensor", target: "Tensor", loss_type: LossType = "l2", threshold: "Tensor | None" = None
) -> "Tensor":
    """The loss of each number of the answer, B×C×h×w, float32: `conditional_loss` of sd-scripts.

    Args:
        answer, target: B×C×h×w.
        loss_type: huber and smooth_l1 are the pseudo-Huber loss with its square part, or its straight part, independent of
            the threshold (Charbonnier et al. 1997; Girshick 2015 for the names).
        threshold: B numbers; l2 needs none.
    """
    errors = answer.float() - target.float()
    if loss_type == "l2" or threshold is None:
        return errors.square()
    c = _each(threshold)
    smooth = (errors.square() + c.square()).sqrt() - c
    return 2 * c * smooth if loss_type == "huber" else 2 * smooth


def face_weights(face: Box | None, bucket: tuple[int, int], cells: tuple[int, int], weight: float) -> "Tensor":
    """How many times the loss counts in each latent cell, 1×h×w: `weight` times in the face's box, once elsewhere, and in between
    in a cell that the box's edge cuts.

    Args:
        face: the box in the bucket's pixels; None if there is none.
        bucket: width and height in pixels.
        cells: h and w.
        weight: 1 or more.
    """
    import torch

    if face is None:
        return torch.ones(1, *cells)
    across = _shares(face[0], face[2], bucket[0], cells[1])
    down = _shares(face[1], face[3], bucket[1], cells[0])
    return (1 + (weight - 1) * down[:, None] * across)[None]


def _shares(begin_px: int, end_px: int, side_px: int, cells: int) -> "Tensor":
    """What share of each of so many cells, side by side, lies between two pixels."""
    import torch

    edges = torch.arange(cells + 1) * (side_px / cells)
    return (edges[1:].clamp(max=end_px) - edges[:-1].clamp(min=begin_px)).clamp(min=0) / (side_px / cells)


def sample_losses(losses: "Tensor", visible: "Tensor") -> "Tensor":
    """Mean loss of each sample over what is visible, B numbers; its derivative is exactly 0 where nothing is.

    Args:
        losses: of each number of the answer, B×C×h×w.
        visible: B×1×h×w, how many times the loss counts: 0 where something is hidden, else 1, or more within a face that is
            weighed. Not all 0 in any sample.
    """
    return (losses * visible).sum(dim=(1, 2, 3)) / (visible.sum(dim=(1, 2, 3)) * losses.shape[1])


def _each(numbers: "Tensor") -> "Tensor":
    """B numbers as B×1×1×1."""
    return numbers.view(-1, 1, 1, 1)
