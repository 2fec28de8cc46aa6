"""Is a training step quicker on the CPU if torch compiles the denoiser, or if it lies in memory with its channels last? (Then there would be such a setting.)

All ways take the same step in turn, so that what else the machine does meets each alike. The first step of the compiled one compiles.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.pictures import draw, training_set
from benchmarks.sd15_shape import build
from lora_pipeline.families import family
from lora_pipeline.families.weights import BUNDLED_FOLDER
from lora_pipeline.settings import BaseSettings, FitSettings
from lora_pipeline.stages.fit.trainer import Trainer, read_cached

WARM_UP, PICTURES = 2, 8
WAYS = ("as it is", "channels last", "compiled")


def ask() -> dict[str, object]:
    """By base and way: seconds of a step (median), of the first one, and the last loss, by which one sees that they reckon the same."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        return {
            "the shipped base, 128 px, batch 4": steps_of(BUNDLED_FOLDER, home / "small", 128, batch=4, steps=40),
            "Stable Diffusion 1.5's shape, 256 px, batch 1": steps_of(build(home / "sd15"), home / "large", 256, 1, 8),
        }


def steps_of(model: Path, folder: Path, side_px: int, batch: int, steps: int) -> dict[str, object]:
    """Train so many steps in each way after the first two."""
    trainers = trainer_maker(model, folder, side_px, batch)
    return in_turn({way: laid(way, trainers()) for way in WAYS}, steps)


def trainer_maker(model: Path, folder: Path, side_px: int, batch: int) -> Callable[[], Trainer]:
    """A function that opens the same run anew."""
    base = BaseSettings(family="sd15", model=str(model))
    pictures = draw(folder / "drawn", PICTURES, side_px)
    examples = read_cached(training_set(pictures, folder, base, side_px, repeats=1000).manifest)
    settings = FitSettings(epochs=1, batch_size=batch, network_dim=16, network_alpha=16)
    return lambda: Trainer(examples, family("sd15"), base, settings, "cpu")


def in_turn(trainers: Mapping[str, Trainer], steps: int) -> dict[str, object]:
    """Take so many steps with each trainer after the first two, one of each at a time."""
    runs = {way: trainer.steps() for way, trainer in trainers.items()}
    seconds: dict[str, list[float]] = {way: [] for way in runs}
    losses: dict[str, float] = {}
    for _ in range(WARM_UP + steps):
        for way, run in runs.items():
            begun = time.perf_counter()
            losses[way] = next(run).loss
            seconds[way].append(time.perf_counter() - begun)
    return {
        way: {
            "s a step": round(statistics.median(took[WARM_UP:]), 4),
            "s of the first": round(took[0], 1),
            "last loss": losses[way],
        }
        for way, took in seconds.items()
    }


def laid(way: str, trainer: Trainer) -> Trainer:
    """The trainer, its denoiser changed in place as one of `WAYS` says."""
    import torch

    module: Any = trainer.module
    if way == "channels last":
        module.to(memory_format=torch.channels_last)
    if way == "compiled":
        module.compile()  # in place, so that its parameters keep their names
    return trainer
