"""Trains the base model's autoencoder on drawn strangers.

It decides everything after it: a face that it cannot draw, no denoiser can. So errors in faces weigh more, edges count
besides colours, and it sees mostly crops around faces. Whole pictures are mixed in, more of them towards the end, because
group normalisation takes its statistics over the picture and a decoder that only knew crops would be off in colour.

First it learns to draw exactly. Then noise is added to its latents, as much as a denoiser's mistakes: what matters, which is
faces, moves to where small errors do not touch it. With noise of 0.4 of the latents' spread, a drawn face was 0.32 from itself
before and 0.23 after (dlib's descriptor).
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lora_pipeline.demo.architecture import new_autoencoder
from lora_pipeline.demo.strangers import Strangers, draw_shards, read_shards

CROP_PX: Final = 64
CROPS: Final = 8
WHOLES: Final = 2
PEAK_RATE: Final = 1e-3
FACE_WEIGHT: Final = 4.0
EMA: Final = 0.998
EXACT: Final = 0.7
"""The share of the steps in which latents bear hardly any noise."""
LATENT_NOISE: Final = (0.02, 0.2)
"""Noise on the latents before and after that, as a share of their spread."""
SAVE_EVERY: Final = 250


def batch_of(data: Strangers, rng: np.random.Generator, whole: bool) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Pictures (N x S x S x 3) and their weights (N x S x S): `FACE_WEIGHT` in faces, 1 elsewhere."""
    count, size = (WHOLES, data.pictures.shape[1]) if whole else (CROPS, CROP_PX)
    pictures = np.empty((count, size, size, 3), np.uint8)
    weights = np.ones((count, size, size), np.float32)
    for i in range(count):
        n = int(rng.integers(len(data.pictures)))
        x, y, width, height = (int(v) for v in data.boxes[n])
        room = data.pictures.shape[1] - size
        if rng.random() < 0.65:
            left, top = (
                x + width / 2 - size / 2 + rng.integers(-14, 15),
                y + height / 2 - size / 2 + rng.integers(-14, 15),
            )
        else:
            left, top = rng.integers(room + 1), rng.integers(room + 1)
        # Multiples of 4: latents must not depend on where the encoder's grid falls, but need not bear every shift.
        left, top = int(np.clip(left, 0, room)) // 4 * 4, int(np.clip(top, 0, room)) // 4 * 4
        pictures[i] = data.pictures[n, top : top + size, left : left + size]
        weights[i, max(0, y - top) : max(0, y + height - top), max(0, x - left) : max(0, x + width - left)] = (
            FACE_WEIGHT
        )
    return pictures, weights


def loss_of(drawn: Any, wanted: Any, weights: Any) -> Any:
    """Charbonnier on colours at three scales, plus L1 on neighbours' differences; N x 3 x H x W and N x 1 x H x W."""
    import torch.nn.functional as F

    def charbonnier(error: Any) -> Any:
        return (error * error + 1e-4).sqrt() - 1e-2

    error = drawn - wanted
    total = (weights * charbonnier(error)).mean()
    for side in ((0, 1), (1, 0)):
        rows, columns = error.shape[2] - side[0], error.shape[3] - side[1]
        step = error[:, :, side[0] :, side[1] :] - error[:, :, :rows, :columns]
        total = total + 0.6 * (weights[:, :, :rows, :columns] * step.abs()).mean()
    for scale in (4, 16):
        total = total + 0.5 * charbonnier(F.avg_pool2d(error, scale)).mean()
    return total


def train(state: Path, steps: int, stop_at: int | None = None) -> Path:
    """Trains up to `steps` (resuming what `state` holds) and gives back the averaged weights' file."""
    import torch

    path, average_path = state / "autoencoder.pt", state / "autoencoder_average.pt"
    torch.manual_seed(0)
    model: Any = new_autoencoder().to(memory_format=torch.channels_last)
    average: Any = copy.deepcopy(model).requires_grad_(False)
    frozen = model.quant_conv
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=1e-4)
    begin = 0
    if path.exists():
        held = torch.load(path, weights_only=True)
        model.load_state_dict(held["model"])
        average.load_state_dict(held["average"])
        optimizer.load_state_dict(held["optimizer"])
        begin = int(held["step"])
    shards: list[Path] = []
    data: Strangers | None = None
    losses: list[float] = []
    clock = time.monotonic()
    for step in range(begin, steps):
        found = sorted((state / "strangers").glob("strangers-???.npz"))[:8]
        if data is None or (step % 250 == 0 and found != shards):
            shards, data = found, read_shards(found)
        rng = np.random.default_rng((1, step))
        torch.manual_seed(step)
        sturdy = step >= EXACT * steps
        done = (step / steps - EXACT) / (1 - EXACT) if sturdy else step / steps / EXACT
        pictures, weights = batch_of(data, rng, whole=bool(rng.random() < (0.15 if done < 0.6 else 0.6)))
        wanted = (torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous(
            memory_format=torch.channels_last
        )
        rate = PEAK_RATE * min(1.0, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        # Less than half the time of float32 where the processor has bfloat16; the loss, a small difference, is told in float32.
        with torch.autocast("cpu", dtype=torch.bfloat16):
            latents = model.encode(wanted).latent_dist.mean
            noise = LATENT_NOISE[sturdy] * latents.detach().float().std()
            drawn = model.decode(latents + noise * torch.randn_like(latents)).sample
        latents, drawn = latents.float(), drawn.float()
        loss = loss_of(drawn, wanted, torch.from_numpy(weights)[:, None]) + 1e-4 * (latents * latents).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        # Rows after the means are the fixed spread.
        half = frozen.weight.shape[0] // 2
        frozen.weight.grad[half:] = 0
        frozen.bias.grad[half:] = 0
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        keep = min(EMA, (step + 1) / (step + 20))
        with torch.no_grad():
            for kept, new in zip(average.parameters(), model.parameters(), strict=True):
                kept.lerp_(new, 1 - keep)
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            raise FloatingPointError(f"the autoencoder's loss is {losses[-1]} at step {step}")
        if (step + 1) % 50 == 0:
            spread = float(latents.detach().std())
            print(f"{step + 1}/{steps} loss {np.mean(losses[-50:]):.4f} latent std {spread:.2f} "
                  f"{(time.monotonic() - clock) / 50:.3f} s/step", flush=True)  # fmt: skip
            clock = time.monotonic()
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps or step + 1 == stop_at:
            held = {"model": model.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save({**held, "step": step + 1}, path.with_suffix(".part"))
            path.with_suffix(".part").rename(path)
            torch.save(average.state_dict(), average_path.with_suffix(".part"))
            average_path.with_suffix(".part").rename(average_path)
        if step + 1 == stop_at:
            break
    return average_path


def finish(state: Path, shard: Path) -> Path:
    """Evens out the averaged autoencoder's latents on one shard's pictures and writes the result.

    Trained, a few latents hold most of the variance and are correlated, as red, green and blue are. The denoiser learns
    fastest from uncorrelated latents of mean 0 and similar spread, and the two 1 x 1 convolutions around the latents can take any
    linear change without touching the pictures: that is where the change of axes goes.
    """
    import torch

    autoencoder: Any = new_autoencoder()
    autoencoder.load_state_dict(torch.load(state / "autoencoder_average.pt", weights_only=True))
    autoencoder.eval()
    pictures = read_shards([shard]).pictures[:400]
    with torch.no_grad():
        means = [
            autoencoder.encode(torch.from_numpy(some).permute(0, 3, 1, 2).float() / 127.5 - 1).latent_dist.mean
            for some in np.split(pictures, 8)
        ]
        latents = torch.cat(means).permute(0, 2, 3, 1).flatten(0, 2).double()
        middle = latents.mean(dim=0)
        variance, axes = torch.linalg.eigh(torch.cov((latents - middle).T))
        spread = variance.clamp(min=0).sqrt()
        print("spread by axis", [round(float(v), 3) for v in spread.flip(0)], flush=True)
        # Half of the way to spread 1: an axis that hardly varies holds little, and blown up all the way it would take the
        # denoiser's effort from those that hold the picture.
        spread = spread.clamp(min=1e-3).sqrt()
        half = len(middle)
        to_even = (axes / spread).T
        into, out = autoencoder.quant_conv, autoencoder.post_quant_conv
        weight, bias = into.weight[:half, :, 0, 0].double(), into.bias[:half].double()
        into.weight[:half, :, 0, 0] = (to_even @ weight).float()
        into.bias[:half] = (to_even @ (bias - middle)).float()
        from_even = axes * spread
        weight = out.weight[:, :, 0, 0].double()
        out.bias += (weight @ middle).float()
        out.weight[:, :, 0, 0] = (weight @ from_even).float()
    path = state / "autoencoder_finished.pt"
    torch.save(autoencoder.state_dict(), path)
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=29000)
    arguments = parser.parse_args()
    draw_shards(arguments.state / "strangers", 2, 2)
    train(arguments.state, arguments.steps)
    print(finish(arguments.state, arguments.state / "strangers" / "strangers-000.npz"))
