"""Trains the base model's text encoder on captions, then it and the denoiser on latents of drawn strangers.

Captions are cut and shuffled as people write them: phrases missing, in another order, with and without a name. Half of the
names are made up on the spot, so that to the finished base an unseen trigger word means "some person", which is what a LoRA
starts from.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import time
from bisect import bisect_right
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lora_pipeline.demo.architecture import (
    LATENT_FACTOR,
    MAX_TOKENS,
    PICTURE_PX,
    TEXT_WIDTH,
    new_autoencoder,
    new_denoiser,
    new_scheduler,
    new_text_encoder,
    new_tokenizer,
    save_pipeline,
)
from lora_pipeline.demo.reader import PHRASES
from lora_pipeline.demo.strangers import read_shards

BATCH: Final = 32
PEAK_RATE: Final = 6e-4
TEXT_RATE: Final = 0.2
"""The text encoder's learning rate, as a share of the denoiser's: it has learnt to read before."""
READING_STEPS: Final = 1000
READING_BATCH: Final = 64
ROUNDS: Final = (6_500, 14_900, 23_300)
"""Where each round ends: in every one the learning rate falls to nothing, and the next begins at its peak again."""
FACE_WEIGHTS: Final = (3.0, 3.0, 6.0)
"""How much more a face weighs in the loss of each round."""
DECAY_FROM_END: Final = 0.35
EMA: Final = 0.997
SAVE_EVERY: Final = 250
DROP_PHRASE: Final = 0.18
DROP_CAPTION: Final = 0.1


def made_up_name(rng: np.random.Generator) -> str:
    """A name that means nobody: "ohwx", "sks", or letters and digits such as "jx265"."""
    if rng.random() < 0.25:
        return str(rng.choice(("ohwx", "sks", "zwx", "tok")))
    letters = "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), int(rng.integers(1, 6))))
    digits = "".join(rng.choice(list("0123456789"), int(rng.integers(0, 4))))
    return letters + digits


def training_caption(class_word: str, phrases: Sequence[str], rng: np.random.Generator) -> str:
    """One way of saying what is in a picture."""
    if rng.random() < DROP_CAPTION:
        return ""
    first = class_word
    if rng.random() < 0.5:
        first = f"{made_up_name(rng)} {first}"
    said = rng.random()
    if said < 0.25:
        first = f"a photo of {'a ' if first == class_word else ''}{first}"
    elif said < 0.35:
        first = f"photo of {first}"
    kept = [phrase for phrase in phrases if rng.random() >= DROP_PHRASE]
    if rng.random() < 0.5:
        rng.shuffle(kept)
    return ", ".join((first, *kept))


def said_in(caption: str, class_words: Sequence[str] = ("woman", "man")) -> list[int]:
    """For the class word and each kind of phrase, the number of what a caption says of it; 0 where it says nothing."""
    phrases = caption.split(", ")
    first = phrases[0].split()[-1] if caption else ""
    kinds = [*PHRASES.values()]
    return [
        class_words.index(first) + 1 if first in class_words else 0,
        *(next((n + 1 for n, phrase in enumerate(kind) if phrase in phrases), 0) for kind in kinds),
    ]


def teach_reading(state: Path, told: Sequence[tuple[str, tuple[str, ...]]]) -> Path:
    """Trains the text encoder to sum up captions at their end, and gives back its weights' file.

    "red shirt, blue background": which colour is whose can only be told by looking at the neighbouring token. Out of a
    denoiser's loss a text encoder finds that after many thousands of steps; asked for it directly, in a minute. CLIP's own
    text encoder was trained before any denoiser too.
    """
    import torch
    import torch.nn.functional as F

    path = state / "reading.pt"
    if path.exists():
        return path
    torch.manual_seed(0)
    tokenizer = new_tokenizer()
    encoder = new_text_encoder(tokenizer)
    sizes = [3, *(len(kind) + 1 for kind in PHRASES.values())]
    head = torch.nn.Linear(TEXT_WIDTH, sum(sizes))
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=PEAK_RATE, weight_decay=1e-3)
    right: list[float] = []
    for step in range(READING_STEPS):
        rng = np.random.default_rng((3, step))
        for group in optimizer.param_groups:
            group["lr"] = PEAK_RATE * min(1.0, (step + 1) / 100, (READING_STEPS - step) / (0.5 * READING_STEPS))
        captions = [training_caption(*told[int(n)], rng) for n in rng.integers(len(told), size=READING_BATCH)]
        truth = torch.tensor([said_in(caption) for caption in captions])
        tokens = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
        states = encoder(tokens)[0]
        # Asked of the end and of the padding after it, which the denoiser sees as well.
        at = torch.from_numpy(rng.uniform(size=READING_BATCH)) * (tokens == tokenizer.eos_token_id).sum(dim=1)
        rows = head(states[torch.arange(READING_BATCH), MAX_TOKENS - 1 - at.long()]).split(sizes, dim=1)
        loss = sum((F.cross_entropy(row, truth[:, i]) for i, row in enumerate(rows)), torch.zeros(()))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        right.append(float(np.mean([(row.argmax(1) == truth[:, i]).float().mean() for i, row in enumerate(rows)])))
        if (step + 1) % 100 == 0:
            print(f"reading {step + 1}/{READING_STEPS} right {np.mean(right[-100:]):.3f}", flush=True)
    torch.save(encoder.state_dict(), path.with_suffix(".part"))
    path.with_suffix(".part").rename(path)
    return path


def round_of(step: int) -> int:
    """Which of `ROUNDS` a step belongs to; what comes after the last one still belongs to it."""
    return min(bisect_right(ROUNDS, step), len(ROUNDS) - 1)


def face_weights(boxes: NDArray[np.int32], weight: float) -> NDArray[np.float32]:
    """N x 1 x 16 x 16 from boxes in px: `weight` where a latent holds some of the face, all with a mean of 1."""
    side = PICTURE_PX // LATENT_FACTOR
    weights = np.ones((len(boxes), 1, side, side), np.float32)
    for cells, (x, y, width, height) in zip(weights, boxes, strict=True):
        left, top = max(0, x // LATENT_FACTOR), max(0, y // LATENT_FACTOR)
        cells[0, top : -(-(y + height) // LATENT_FACTOR), left : -(-(x + width) // LATENT_FACTOR)] = weight
    return weights / weights.mean(axis=(1, 2, 3), keepdims=True)


def encode_strangers(state: Path, shards: Sequence[Path]) -> float:
    """Writes each shard's latents (N x 12 x 16 x 16, float16, unscaled) beside it and gives back 1 / their spread."""
    import torch

    model: Any = new_autoencoder()
    model.load_state_dict(torch.load(state / "autoencoder_finished.pt", weights_only=True))
    model.eval().to(memory_format=torch.channels_last)
    first: Any = None
    for shard in shards:
        path = shard.with_name(shard.name.replace("strangers", "latents").replace(".npz", ".npy"))
        if not path.exists():
            pictures = read_shards([shard]).pictures
            latents: list[Any] = []
            with torch.no_grad():
                for start in range(0, len(pictures), 50):
                    batch = torch.from_numpy(pictures[start : start + 50]).permute(0, 3, 1, 2).float() / 127.5 - 1
                    batch = batch.contiguous(memory_format=torch.channels_last)
                    latents.append(model.encode(batch).latent_dist.mean)
            aside = path.with_suffix(".part.npy")
            np.save(aside, torch.cat(latents).half().numpy())
            aside.rename(path)
            print(path.name, flush=True)
        if first is None:
            first = np.load(path).astype(np.float32)
    return round(float(1 / first.std()), 4)


def train(state: Path, steps: int, stop_at: int | None = None) -> Path:
    """Trains up to `steps`, resuming what `state` holds; gives back the averaged weights' file."""
    import torch

    shards = sorted((state / "strangers").glob("strangers-???.npz"))
    scaling = encode_strangers(state, shards)
    told = [(w, p) for shard in shards for w, p in _captions(shard)]
    boxes = np.concatenate([_boxes(shard) for shard in shards])
    latents = np.concatenate(
        [np.load(s.with_name(s.name.replace("strangers", "latents").replace(".npz", ".npy"))) for s in shards]
    )
    print(f"{len(told)} latents, scaling {scaling}", flush=True)

    torch.manual_seed(0)
    tokenizer = new_tokenizer()
    parts: Any = torch.nn.ModuleDict({"text": new_text_encoder(tokenizer), "unet": new_denoiser()})
    parts["text"].load_state_dict(torch.load(teach_reading(state, told), weights_only=True))
    average: Any = copy.deepcopy(parts).requires_grad_(False)
    scheduler = new_scheduler()
    groups: list[dict[str, Any]] = [
        {"params": [*parts["unet"].parameters()], "share": 1.0},
        {"params": [*parts["text"].parameters()], "share": TEXT_RATE},
    ]
    optimizer = torch.optim.AdamW(groups, lr=PEAK_RATE, betas=(0.9, 0.99), weight_decay=1e-3)
    path, average_path, begin = state / "denoiser.pt", state / "denoiser_average.pt", 0
    if path.exists():
        held = torch.load(path, weights_only=True)
        parts.load_state_dict(held["model"])
        average.load_state_dict(held["average"])
        optimizer.load_state_dict(held["optimizer"])
        begin = int(held["step"])
    weights = list(parts.parameters())
    # Each core takes its own part of the batch. Two threads on every operation would wait for each other thousands of times
    # a step instead of once.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    cores = min(os.cpu_count() or 1, 8)
    shares = [slice(n * BATCH // cores, (n + 1) * BATCH // cores) for n in range(cores)]
    workers = ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,))
    losses: list[float] = []
    clock = time.monotonic()
    for step in range(begin, steps):
        rng = np.random.default_rng((2, step))
        torch.manual_seed(step)
        which = round_of(step)
        start = (0, *ROUNDS)[which]
        end = steps if which == len(ROUNDS) - 1 else min(ROUNDS[which], steps)
        done = (step - start) / (end - start)
        rate = PEAK_RATE * min(1.0, (step + 1) / 200, 0.01 + (1 - done) / DECAY_FROM_END)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["share"]
        chosen = rng.integers(len(told), size=BATCH)
        clean = torch.from_numpy(latents[chosen]).float() * scaling
        captions = [training_caption(*told[int(n)], rng) for n in chosen]
        tokens = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
        # One time a stratum of the clock, not BATCH independent ones: the same mean, less noise. Every second one is drawn
        # towards the middle (Esser et al. 2024, "Scaling Rectified Flow Transformers": logit-normal), where faces take shape.
        clock_face = (torch.arange(BATCH) + torch.rand(BATCH)) / BATCH
        middle = torch.sigmoid(torch.special.ndtri(clock_face.clamp(1e-4, 1 - 1e-4)))
        times = (torch.where(torch.arange(BATCH) % 2 == 0, clock_face, middle) * 1000).long().clamp(0, 999)
        noise = torch.randn_like(clean)
        noisy = scheduler.add_noise(clean, noise, times)
        # Salimans & Ho 2022, "Progressive Distillation for Fast Sampling of Diffusion Models", appendix D: v in place of noise.
        # To tell the noise where there is hardly anything else, a denoiser must learn to copy its input exactly, and what the
        # caption says of colours drowns in what it copies wrongly. There v is the picture itself, and the caption tells it.
        velocity = scheduler.get_velocity(clean, noise, times)

        def share(
            some: slice,
            noisy: Any = noisy,
            times: Any = times,
            tokens: Any = tokens,
            velocity: Any = velocity,
            weight: Any = torch.from_numpy(face_weights(boxes[chosen], FACE_WEIGHTS[which])),
        ) -> tuple[float, Any]:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                said = parts["text"](tokens[some])[0]
                guessed = parts["unet"](noisy[some], times[some], said).sample.float()
            loss = (weight[some] * (guessed - velocity[some]).square()).mean() * (len(guessed) / BATCH)
            return float(loss.detach()), torch.autograd.grad(loss, weights)

        results = list(workers.map(share, shares))
        for number, parameter in enumerate(weights):
            parameter.grad = torch.stack([gradients[number] for _, gradients in results]).sum(dim=0)
        torch.nn.utils.clip_grad_norm_(parts.parameters(), 1.0)
        optimizer.step()
        keep = min(EMA, (step + 1) / (step + 20))
        with torch.no_grad():
            for kept, new in zip(average.parameters(), parts.parameters(), strict=True):
                kept.lerp_(new, 1 - keep)
        losses.append(sum(loss for loss, _ in results))
        if not math.isfinite(losses[-1]):
            raise FloatingPointError(f"the denoiser's loss is {losses[-1]} at step {step}")
        if (step + 1) % 50 == 0:
            print(
                f"{step + 1}/{steps} loss {np.mean(losses[-50:]):.4f} {(time.monotonic() - clock) / 50:.3f} s/step",
                flush=True,
            )
            clock = time.monotonic()
        if (step + 1) % SAVE_EVERY == 0 or step + 1 in (steps, stop_at):
            held = {"model": parts.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save({**held, "step": step + 1}, path.with_suffix(".part"))
            path.with_suffix(".part").rename(path)
            finished = {"average": average.state_dict(), "scaling": scaling, "step": step + 1}
            torch.save(finished, average_path.with_suffix(".part"))
            average_path.with_suffix(".part").rename(average_path)
        if step + 1 == stop_at:
            break
    torch.set_num_threads(threads)
    return average_path


def _boxes(shard: Path) -> NDArray[np.int32]:
    with np.load(shard) as held:
        return held["boxes"]


def _captions(shard: Path) -> list[tuple[str, tuple[str, ...]]]:
    data = read_shards([shard])
    return list(zip(data.class_words, data.phrases, strict=True))


def save(state: Path, folder: Path) -> Path:
    """Writes what `state` holds as a pipeline folder."""
    import torch

    autoencoder: Any = new_autoencoder()
    autoencoder.load_state_dict(torch.load(state / "autoencoder_finished.pt", weights_only=True))
    held = torch.load(state / "denoiser_average.pt", weights_only=True)
    autoencoder.register_to_config(scaling_factor=float(held["scaling"]))
    tokenizer = new_tokenizer()
    parts: Any = torch.nn.ModuleDict({"text": new_text_encoder(tokenizer), "unet": new_denoiser()})
    parts.load_state_dict(held["average"])
    return save_pipeline(folder, autoencoder, parts["text"], tokenizer, parts["unet"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=ROUNDS[-1])
    arguments = parser.parse_args()
    print(train(arguments.state, arguments.steps))
