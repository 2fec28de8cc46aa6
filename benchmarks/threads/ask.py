"""How many threads of a CPU should train, and should they spin before they sleep when they wait for each other: if all cores are free, and if one is not?

What the shipped base's recipes say of `fit.num_cpu_threads_per_process`, and `stages.fit.process.environment` of GOMP_SPINCOUNT, rests on this.
Each run is a process of its own, since threads learn how to wait when torch is loaded. And should each thread take its own part of a batch, in
place of its part of every operation (as `demo/train_denoiser` does, which trains all weights)?
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.pictures import draw, training_set
from benchmarks.sd15_shape import build
from lora_pipeline.families import family
from lora_pipeline.families.weights import BUNDLED_FOLDER
from lora_pipeline.settings import BaseSettings, FitSettings
from lora_pipeline.stages.fit.order import Look
from lora_pipeline.stages.fit.process import environment
from lora_pipeline.stages.fit.trainer import Trainer, read_cached

WARM_UP, PICTURES = 2, 8
CONVOLUTIONS_TOO = {"network_conv_dim": 16, "network_conv_alpha": 16}


def ask() -> dict[str, object]:
    """By base, cores, threads and way of waiting: median seconds of a step."""
    with tempfile.TemporaryDirectory() as folder:
        large = build(Path(folder) / "sd15")
        return {
            "the shipped base, 128 px, batch 4": _steps(BUNDLED_FOLDER, 128, 4, 30),
            "Stable Diffusion 1.5's shape, 256 px, batch 1": _steps(large, 256, 1, 5),
        }


def _steps(model: Path, side_px: int, batch: int, steps: int) -> dict[str, float]:
    told: dict[str, float] = {}
    cores = os.cpu_count() or 1
    for busy, others in ((False, "all cores free"), (True, "one core busy")):
        ways = [
            ("one thread", 1, "0", 1),
            (f"{cores} threads, sleeping", cores, "0", 1),
            (f"{cores} threads, spinning first", cores, "", 1),
            *([(f"{cores} threads, each with its part of the batch", 1, "0", cores)] if batch >= cores > 1 else []),
        ]
        for way, threads, spins, parts in ways:
            variables = environment() | {"OMP_NUM_THREADS": str(threads)} | ({"GOMP_SPINCOUNT": spins} if spins else {})
            given = (model, side_px, batch, steps, parts)
            words = [sys.executable, "-m", "benchmarks.threads.ask", *(str(one) for one in given)]
            with _at_work() if busy else nullcontext():
                answer = subprocess.run(words, env=variables, stdout=subprocess.PIPE, text=True, check=True).stdout
            told[f"{others}, {way}"] = float(answer.splitlines()[-1])
            print(told, flush=True)
    return told


@contextmanager
def _at_work() -> Generator[None]:
    """Another program that wants a core."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as other:
        try:
            yield
        finally:
            other.kill()


@contextmanager
def _in_parts(trainer: Trainer, parts: int) -> Generator[None]:
    """Let so many threads each take a part of a batch; the losses are those of the whole but for rounding."""
    import torch

    parameters = list(trainer.parameters.values())

    def part(looks: tuple[Look, ...], ahead: int, share: float) -> tuple[float, tuple[Any, ...]]:
        loss = trainer.loss(looks, ahead) * share
        return float(loss.detach()), torch.autograd.grad(loss, parameters)

    def accumulate(step: tuple[tuple[Look, ...], ...]) -> float:
        (batch,) = step
        size = -(-len(batch) // parts)
        taken = [
            (batch[at : at + size], at, len(batch[at : at + size]) / len(batch)) for at in range(0, len(batch), size)
        ]
        done = list(workers.map(part, *zip(*taken, strict=True)))
        for number, parameter in enumerate(parameters):
            parameter.grad = torch.stack([gradients[number] for _, gradients in done]).sum(dim=0)
        return sum(loss for loss, _ in done)

    workers = ThreadPoolExecutor(parts, initializer=torch.set_num_threads, initargs=(1,))
    with workers, mock.patch.object(trainer, "_accumulate", accumulate):
        yield


def main() -> None:
    """Train so many steps after the first two, and print the median of their seconds."""
    model, side_px, batch, steps, parts = Path(sys.argv[1]), *(int(word) for word in sys.argv[2:])
    base = BaseSettings(family="sd15", model=str(model))
    settings = FitSettings(batch_size=batch, network_dim=16, network_alpha=16, **CONVOLUTIONS_TOO)
    with tempfile.TemporaryDirectory() as folder:
        pictures = draw(Path(folder) / "drawn", PICTURES, side_px)
        examples = read_cached(training_set(pictures, Path(folder), base, side_px, repeats=1000).manifest)
        trainer = Trainer(examples, family("sd15"), base, settings, "cpu")
        run = trainer.steps()
        seconds: list[float] = []
        with _in_parts(trainer, parts) if parts > 1 else nullcontext():
            for _ in range(WARM_UP + steps):
                begun = time.perf_counter()
                next(run)
                seconds.append(time.perf_counter() - begun)
    print(json.dumps(round(statistics.median(seconds[WARM_UP:]), 4)))


if __name__ == "__main__":
    main()
