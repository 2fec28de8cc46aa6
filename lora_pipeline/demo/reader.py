"""Reads a picture's caption back: a small network calibrated on drawn pictures of known truth.

It is the ruler that `measure` holds to generated pictures. How often the ruler itself is right, on drawn pictures that it
never saw, is measured beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lora_pipeline.demo.strangers import Strangers
from lora_pipeline.demo.world import (
    BACKGROUND_COLOURS,
    FRAMING_PHRASES,
    HAIR_COLOURS,
    LIGHT_PHRASES,
    SHIRT_COLOURS,
    angle_phrase,
)

PHRASES: Final[dict[str, tuple[str, ...]]] = {
    "framing": tuple(FRAMING_PHRASES.values()),
    "angle": tuple(angle_phrase(yaw) for yaw in (-30.0, 0.0, 30.0)),
    "hair": tuple(f"{colour} hair" for colour in HAIR_COLOURS),
    "glasses": ("wearing glasses", "no glasses"),
    "shirt": tuple(f"{colour} shirt" for colour in SHIRT_COLOURS),
    "background": tuple(f"{colour} background" for colour in BACKGROUND_COLOURS),
    "light": tuple(LIGHT_PHRASES.values()),
}
"""What can be read, in a caption's order."""

WEIGHTS: Final = Path(__file__).with_name("base") / "reader.safetensors"


def new_reader() -> Any:
    """Untrained: N x 3 x 128 x 128 in -1..1 to one row of numbers, a number a phrase of `PHRASES`."""
    from torch import nn

    layers: list[Any] = []
    for before, after in ((3, 16), (16, 32), (32, 48), (48, 64)):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    layers += [nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * 64, sum(map(len, PHRASES.values())))]
    return nn.Sequential(*layers)


def calibrate(data: Strangers, passes: int = 8, seed: int = 0) -> Any:
    """Trains a reader on drawn pictures, slightly blurred and noisy half of the time as generated ones are."""
    import torch
    import torch.nn.functional as F

    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    reader: Any = new_reader()
    truth = torch.tensor(
        [[PHRASES[kind].index(said) for kind, said in zip(PHRASES, phrases, strict=True)] for phrases in data.phrases]
    )
    batch, count = 64, len(data.pictures)
    total = passes * (count // batch)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=total)
    for step in range(total):
        chosen = rng.integers(count, size=batch)
        pictures = torch.from_numpy(data.pictures[chosen]).permute(0, 3, 1, 2).float() / 127.5 - 1
        if step % 2:
            pictures = F.avg_pool2d(pictures, 3, stride=1, padding=1, count_include_pad=False)
            pictures = pictures + 0.04 * torch.randn_like(pictures)
        rows = reader(pictures).split([len(p) for p in PHRASES.values()], dim=1)
        loss = sum((F.cross_entropy(row, truth[chosen, i]) for i, row in enumerate(rows)), torch.zeros(()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return reader.eval()


def load_reader(path: Path = WEIGHTS) -> Any:
    """The calibrated reader that lies beside the base."""
    from safetensors.torch import load_file

    reader: Any = new_reader()
    reader.load_state_dict({name: weight.float() for name, weight in load_file(path).items()})
    return reader.eval()


def save_reader(reader: Any, path: Path = WEIGHTS) -> None:
    """Writes a calibrated reader in half precision."""
    from safetensors.torch import save_file

    save_file({name: weight.half().contiguous() for name, weight in reader.state_dict().items()}, path)


def read(reader: Any, pictures: Sequence[Image.Image] | NDArray[np.uint8]) -> list[dict[str, str]]:
    """What each 128 x 128 RGB picture shows: "hair" -> "red hair", and so on for every kind of `PHRASES`."""
    import torch

    with torch.no_grad():
        stacked = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures]))
        rows = reader(stacked.permute(0, 3, 1, 2).float() / 127.5 - 1)
        best = [part.argmax(dim=1) for part in rows.split([len(p) for p in PHRASES.values()], dim=1)]
    return [
        {kind: PHRASES[kind][int(column[n])] for kind, column in zip(PHRASES, best, strict=True)}
        for n in range(len(stacked))
    ]
