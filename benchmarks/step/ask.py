"""What is a training step made of, on the CPU? (Wanted: under 5 % that is not forward, backward and optimiser.)

Forward is the denoiser's answer, backward all of torch's, the optimiser its own step. What is left is drawing noise, stacking the batch, the
loss, clipping the gradient, and writing a line of the run's steps.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.pictures import draw, training_set
from benchmarks.sd15_shape import build
from lora_pipeline.families import FAMILIES
from lora_pipeline.families.sd15 import StableDiffusion15
from lora_pipeline.families.weights import BUNDLED_FOLDER
from lora_pipeline.manifest import write
from lora_pipeline.settings import BaseSettings, FitSettings
from lora_pipeline.stages.fit.job import Job
from lora_pipeline.stages.fit.run import run

WARM_UP, PICTURES = 2, 8


def ask() -> dict[str, object]:
    """Seconds of the parts of a step (medians), and the share of each step that is none of them."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        return {
            "load before": round(os.getloadavg()[0], 2),
            "the shipped base, 128 px, batch 4": parts(BUNDLED_FOLDER, home / "small", 128, batch=4, steps=40),
            "Stable Diffusion 1.5's shape, 256 px, batch 1": parts(build(home / "sd15"), home / "large", 256, 1, 6),
        }


def parts(model: Path, folder: Path, side_px: int, batch: int, steps: int) -> dict[str, object]:
    """Train so many steps after the first two, as `fit` does."""
    base = BaseSettings(family="sd15", model=str(model))
    pictures = draw(folder / "drawn", PICTURES, side_px)
    encoded = training_set(pictures, folder, base, side_px, repeats=1000).manifest
    settings = FitSettings(epochs=1, batch_size=batch, network_dim=16, network_alpha=16)
    job = Job("0" * 64, folder / "run", encoded.folder, encoded.digest, settings, base, "")
    job.run.mkdir()
    write(job.run, encoded.rows, "trained_on")
    wholes: list[float] = []
    inner: list[dict[str, float]] = []
    with _timed() as spent:
        reports = run(job, device="cpu")
        for _ in range(WARM_UP):
            next(reports)
        for _ in range(steps):
            spent.clear()
            begun = time.perf_counter()
            next(reports)
            wholes.append(time.perf_counter() - begun)
            inner.append(dict(spent))
        reports.close()  # type: ignore[attr-defined]  # a generator
    left = [whole - sum(one.values()) for whole, one in zip(wholes, inner, strict=True)]
    return {
        "steps": steps,
        "whole, s": round(statistics.median(wholes), 4),
        **{f"{name}, s": round(statistics.median(one[name] for one in inner), 4) for name in inner[0]},
        "the rest, s": round(statistics.median(left), 4),
        "the rest, share of the median step": _median_share(left, wholes),
        # a machine that does other things too lengthens a whole step more often than what is short
        "the rest, share of the quickest step, at most": round(statistics.median(left) / min(wholes), 4),
    }


def _median_share(parts_s: list[float], wholes_s: list[float]) -> float:
    return round(statistics.median(part / whole for part, whole in zip(parts_s, wholes_s, strict=True)), 4)


@contextmanager
def _timed() -> Generator[dict[str, float]]:
    """While it is open, what the parts of a step take is added up in the dictionary that it gives."""
    import torch
    from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

    spent: dict[str, float] = {}
    begun = {"optimiser": 0.0}

    def add(name: str, since: float) -> None:
        spent[name] = spent.get(name, 0.0) + time.perf_counter() - since

    class Timed(StableDiffusion15):
        def predict(self, *given: Any) -> Any:
            since = time.perf_counter()
            answer = super().predict(*given)
            add("forward", since)
            return answer

    def timed_backward(loss: Any, *given: Any, **named: Any) -> None:
        since = time.perf_counter()
        backward(loss, *given, **named)
        add("backward", since)

    backward = torch.Tensor.backward
    hooks = (
        register_optimizer_step_pre_hook(lambda *_: begun.update(optimiser=time.perf_counter())),
        register_optimizer_step_post_hook(lambda *_: add("optimiser", begun["optimiser"])),
    )
    untimed = FAMILIES["sd15"]
    FAMILIES["sd15"], torch.Tensor.backward = Timed(), timed_backward  # type: ignore[assignment, method-assign]
    try:
        yield spent
    finally:
        FAMILIES["sd15"], torch.Tensor.backward = untimed, backward  # type: ignore[method-assign]
        for hook in hooks:
            hook.remove()
