"""How fast does it train on a graphics card, in how much memory, and with what share of what the card can do?

Stable Diffusion 1.5 at 512 px, SDXL and FLUX at 1024, in their full size with random weights, in bf16 with a LoRA of rank 32. Each case is a process
of its own. The card's rate is that of large products of matrices in bf16; a step's operations are counted by torch on the same denoiser
without numbers, as it goes forward and back once (what gradient checkpointing reckons again is not counted).

Wanted: SDXL with four pictures a step at half of the card's rate or more, and FLUX in nf4 with one picture within 10 GiB.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal
from unittest import mock

from benchmarks.card.shapes import SHAPES, Shape, build, denoiser, training_set
from benchmarks.compiled.ask import laid
from lora_pipeline.settings import BaseSettings, FitSettings
from lora_pipeline.stages.fit.order import Look
from lora_pipeline.stages.fit.process import environment
from lora_pipeline.stages.fit.run import repeatable
from lora_pipeline.stages.fit.trainer import Trainer, most_memory_mib

RANK, WARM_UP, STEPS = 32, 3, 10
LONGEST_S = 300  # of a case
SIDE = 8192  # of the matrices by which the card's rate is measured


@dataclass(frozen=True)
class Case:
    """What is measured once.

    Args:
        shape: of `SHAPES`.
        batch: pictures a step.
        base_precision: as in the settings.
        way: of `benchmarks.compiled`.
    """

    shape: str
    batch: int
    base_precision: Literal["bf16", "nf4"] = "bf16"
    way: str = "as it is"

    @property
    def settings(self) -> FitSettings:
        """FLUX is too large to train without checkpointing on most cards; who holds it in nf4 has the optimiser hold its moments in 8 bits too."""
        return FitSettings(
            epochs=1,
            batch_size=self.batch,
            network_dim=RANK,
            network_alpha=RANK,
            mixed_precision="bf16",
            base_precision=self.base_precision,
            optimizer_type="AdamW8bit" if self.base_precision == "nf4" else "AdamW",
            gradient_checkpointing=self.shape == "FLUX",
        )


CASES = (
    *(Case(shape, batch) for shape in SHAPES for batch in (1, 4)),
    *(Case("FLUX", batch, "nf4") for batch in (1, 4)),
    *(Case(shape, batch, way="compiled") for shape in SHAPES for batch in (1, 4)),
    *(Case(shape, batch, way="channels last") for shape in ("SD 1.5", "SDXL") for batch in (1, 4)),
)


def ask() -> dict[str, object] | None:
    """A row a case; None where there is no graphics card."""
    import torch

    if not torch.cuda.is_available():
        print("no graphics card is at hand: what stands here stays")
        return None
    rate = matrix_rate("cuda")
    print(f"{torch.cuda.get_device_name()}: {rate / 1e12:.0f} TFLOP a second")
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, shape in SHAPES.items():
            model = build(shape, Path(folder) / name, "cuda")
            torch.cuda.empty_cache()
            cases = [one for one in CASES if one.shape == name]
            operations = {batch: operations_of(shape, model, batch) for batch in {one.batch for one in cases}}
            for case in cases:
                rows.append(row(case, model, rate, operations[case.batch]))
                print(json.dumps(rows[-1]), flush=True)  # so that a run that is cut off has told what it knew
    return {"card": torch.cuda.get_device_name(), "bf16, TFLOP a second": round(rate / 1e12, 1), "cases": rows}


def row(case: Case, model: Path, rate: float, operations: float) -> dict[str, object]:
    """What was measured of a case in a process of its own, or why nothing was."""
    command = [sys.executable, "-m", "benchmarks.card.ask", json.dumps(asdict(case)), str(model)]
    try:
        told = subprocess.run(
            command, env=environment(), capture_output=True, text=True, check=False, timeout=LONGEST_S
        )
    except subprocess.TimeoutExpired:
        return {**asdict(case), "why not": f"not through within {LONGEST_S} s"}
    if told.returncode:
        return {**asdict(case), "why not": (told.stderr.splitlines() or [""])[-1]}
    measured = json.loads(told.stdout.splitlines()[-1])
    return {
        **asdict(case),
        **measured,
        "TFLOP a step": round(operations / 1e12, 2),
        "share of the card's rate": round(operations / measured["s a step"] / rate, 3),
    }


def measured(case: Case, model: Path, device: str) -> dict[str, float]:
    """Seconds a step (median), images a second, and the most memory that torch took, GiB."""
    repeatable(device)
    trainer = laid(case.way, _trainer(SHAPES[case.shape], model, case.settings, device))
    seconds = _seconds(lambda: trainer.step_on(_looks(case.batch)), device)
    step = statistics.median(seconds[WARM_UP:])
    return {
        "s of the first step": round(seconds[0], 1),
        "s a step": round(step, 4),
        "images a second": round(case.batch / step, 3),
        "most memory, GiB": round(most_memory_mib(device) / 2**10, 2),
    }


def operations_of(shape: Shape, model: Path, batch: int) -> float:
    """Multiplications and additions of a step's products of matrices, convolutions and attention."""
    from torch.utils.flop_counter import FlopCounterMode

    with mock.patch.object(shape.family, "open_denoiser", return_value=denoiser(shape, "meta").float()):
        trainer = _trainer(shape, model, FitSettings(batch_size=batch, network_dim=RANK), "meta")
    with FlopCounterMode(display=False) as counter:
        trainer.loss(_looks(batch)).backward()
    return counter.get_total_flops()


def matrix_rate(device: str, side: int = SIDE) -> float:
    """Multiplications and additions a second of square matrices' products in bf16, the best of them."""
    import torch

    left, right = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = _seconds(lambda: left @ right, device)
    return 2 * side**3 / min(seconds)


def _seconds(work: Callable[[], object], device: str) -> list[float]:
    """How long it takes, each time until the device is through with it."""
    import torch

    seconds: list[float] = []
    for _ in range(WARM_UP + STEPS):
        begun = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    return seconds


def _trainer(shape: Shape, model: Path, settings: FitSettings, device: str) -> Trainer:
    base = BaseSettings(family=shape.family.name, model=str(model))
    return Trainer(training_set(shape, settings.batch_size), shape.family, base, settings, device)


def _looks(batch: int) -> tuple[Look, ...]:
    return tuple(Look(number, mirrored=False) for number in range(batch))


def main(words: Sequence[str]) -> None:
    """A case, in JSON, and its model's folder."""
    given: dict[str, Any] = json.loads(words[0])
    print(json.dumps(measured(Case(**given), Path(words[1]), "cuda")))


if __name__ == "__main__":
    main(sys.argv[1:])
