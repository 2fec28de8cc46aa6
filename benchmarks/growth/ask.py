"""What do a step's memory and the caching of latents cost as pictures grow to ten times their area? On the CPU.

Pictures of the shipped base grow from its own 128 px, those of Stable Diffusion 1.5's shape from 192 px.
"""

import os
import tempfile
import time
from pathlib import Path

from benchmarks.pictures import draw, training_set
from benchmarks.sd15_shape import build
from lora_pipeline.families import family
from lora_pipeline.families.weights import BUNDLED_FOLDER
from lora_pipeline.settings import BaseSettings, FitSettings
from lora_pipeline.stages.fit import fit
from lora_pipeline.stages.fit.job import steps_in

PICTURES, REPEATS = 2, 3


def ask() -> dict[str, object]:
    """By side: the most memory that the training process took, seconds of its quickest step, and seconds to encode a picture."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # of the processes that train too
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        return {
            "the shipped base": [grown(BUNDLED_FOLDER, home / f"small{side}", side) for side in (128, 192, 288, 416)],
            "Stable Diffusion 1.5's shape": [
                grown(model, home / f"large{side}", side) for model in [build(home / "sd15")] for side in (192, 608)
            ],
        }


def grown(model: Path, folder: Path, side_px: int) -> dict[str, float]:
    """Train two steps of one picture, in a process of their own, and encode a picture three times."""
    import torch

    base = BaseSettings(family="sd15", model=str(model))
    encoded = training_set(draw(folder / "drawn", PICTURES, side_px), folder, base, side_px)
    settings = FitSettings(epochs=1, batch_size=1, network_dim=16, network_alpha=16)
    fit(encoded.manifest, folder / "fit", settings, base, prompt="")
    (steps,) = (steps_in(file) for file in folder.glob("fit/runs/*/steps.jsonl"))
    encoder = family("sd15").open_pictures(base, "cpu", "float32")
    seconds: list[float] = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        encoder.encode(torch.zeros(1, 3, side_px, side_px))
        seconds.append(time.perf_counter() - begun)
    return {
        "side, px": side_px,
        "memory, MiB": steps[-1].memory_mib,
        "least s a step": round(min(step.seconds for step in steps), 3),
        "least s to encode a picture": round(min(seconds), 3),
    }
