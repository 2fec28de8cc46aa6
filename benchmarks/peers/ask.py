"""How fast does it train next to diffusers' train_dreambooth_lora.py and sd-scripts' train_network.py, on the CPU?

Wanted: on the shipped base twice diffusers' images a second; on Stable Diffusion 1.5's shape 1.2 times those of both.

Each trainer's own script runs as it stands, with the same pictures, words, rank, optimiser, rate and seed, in float32, and with the
fastest of its switches that change no result: words encoded before for diffusers, latents cached and torch's attention for
sd-scripts. What is encoded before the first step is not in the time. Two trainers at a time take turns, a step each. How threads wait for
each other and how memory is kept (`environment`) is for us what we set, and for them what it is by itself.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from benchmarks.peers.checkouts import BESIDE, DIFFUSERS, SD_SCRIPTS, Peer, packages_of, script_of
from benchmarks.pictures import CAPTION, draw
from benchmarks.sd15_shape import build
from lora_pipeline.families.weights import BUNDLED_FOLDER
from lora_pipeline.stages.fit.process import environment

HERE = Path(__file__).parent
RANK, RATE, SEED, PICTURES, WARM_UP = 16, 1e-4, 42, 4, 2
ENDLESS = 1000  # repeats, and steps; the benchmark ends them


@dataclass(frozen=True)
class Duel:
    """One comparison.

    Args:
        name: in the result.
        peer: who is measured beside.
        small: whether on the shipped base, else on Stable Diffusion 1.5's shape.
        side_px: of the square pictures.
        batch: pictures a step.
        steps: that are timed, of each.
        wanted: times the peer's images a second.
    """

    name: str
    peer: Peer
    small: bool
    side_px: int
    batch: int
    steps: int
    wanted: float


@dataclass(frozen=True)
class Step:
    """How long a step took: by the clock, and summed over the cores while they computed for it; the latter tells less of what else runs."""

    seconds: float
    computed: float


DUELS = (
    Duel("the shipped base", DIFFUSERS, small=True, side_px=128, batch=4, steps=40, wanted=2.0),
    Duel("Stable Diffusion 1.5's shape", DIFFUSERS, small=False, side_px=256, batch=1, steps=8, wanted=1.2),
    Duel("Stable Diffusion 1.5's shape", SD_SCRIPTS, small=False, side_px=256, batch=1, steps=8, wanted=1.2),
)


def ask(peers: Path | None = None) -> dict[str, object]:
    """Seconds a step of both sides of each duel; from the least of them, how many times the peer's images a second.

    Args:
        peers: folder in which the other trainers are checked out, or will be; None: beside this repository.
    """
    peers = (peers or BESIDE).resolve()
    with tempfile.TemporaryDirectory() as folder:
        shape = build(Path(folder) / "sd15")
        return {
            "duels": [
                _fought(duel, BUNDLED_FOLDER if duel.small else shape, Path(folder) / str(number), peers)
                for number, duel in enumerate(DUELS)
            ]
        }


def _fought(duel: Duel, model: Path, folder: Path, peers: Path) -> dict[str, object]:
    print(f"{duel.name}, {duel.peer.name}")
    pictures = draw(folder / "pictures" / f"{ENDLESS}_{CAPTION}", PICTURES, duel.side_px)
    before = os.getloadavg()[0]
    with ExitStack() as stack:
        both = [
            stack.enter_context(_Trainer(words, folder / name, variables))
            for name, words, variables in (
                ("ours", _ours(duel, model, pictures, folder), environment()),
                ("theirs", _theirs(duel, model, pictures, folder, peers), _their_environment(duel.peer, peers)),
            )
        ]
        for _ in range(WARM_UP):
            for trainer in both:
                trainer.step()
        ours: list[Step] = []
        theirs: list[Step] = []
        for number in range(duel.steps):  # who begins changes, so that neither always comes after the other
            sides = [(both[0], ours), (both[1], theirs)]
            for trainer, seconds in sides if number % 2 == 0 else reversed(sides):
                seconds.append(trainer.step())
    return {
        "on": duel.name,
        "beside": f"{duel.peer.name} {duel.peer.tag}",
        "side, px": duel.side_px,
        "batch": duel.batch,
        "load before and after": [round(load, 2) for load in (before, os.getloadavg()[0])],
        "steps of each": duel.steps,
        "ours": _told(ours, duel.batch),
        "theirs": _told(theirs, duel.batch),
        "times as fast": {
            "by the least seconds": _ratio(min, [one.seconds for one in theirs], [one.seconds for one in ours]),
            "by the median": _ratio(statistics.median, [one.seconds for one in theirs], [one.seconds for one in ours]),
            "by the least computing": _ratio(min, [one.computed for one in theirs], [one.computed for one in ours]),
        },
        "wanted": duel.wanted,
    }


def _told(steps: Sequence[Step], batch: int) -> dict[str, float]:
    seconds = [one.seconds for one in steps]
    return {
        "least s a step": round(min(seconds), 4),
        "median s a step": round(statistics.median(seconds), 4),
        "least s a step, of all cores together": round(min(one.computed for one in steps), 4),
        "images a second": round(batch / min(seconds), 3),
    }


def _ratio(of: Callable[[list[float]], float], theirs: list[float], ours: list[float]) -> float:
    return round(of(theirs) / of(ours), 2)


class _Trainer:
    """A trainer's process, which computes only while `step` waits for it."""

    def __init__(self, words: Sequence[str], folder: Path, variables: Mapping[str, str]) -> None:
        folder.mkdir(parents=True)
        self.log = folder / "log.txt"
        theirs, own = os.pipe(), os.pipe()
        self.told, self.said = theirs[1], os.fdopen(own[0])
        told = {
            "TURNS_IN": str(theirs[0]),
            "TURNS_OUT": str(own[1]),
            "CUDA_VISIBLE_DEVICES": "",
            "HF_HUB_OFFLINE": "1",
        }
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "timed.py"), *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                env={**variables, **told},
                pass_fds=(theirs[0], own[1]),
            )
        for end in (theirs[0], own[1]):
            os.close(end)

    def __enter__(self) -> Self:
        self._said()  # it goes to the end of its first step by itself
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.told)  # the end of its turns
        self.process.wait()
        self.said.close()

    def step(self) -> Step:
        """Let it take a step."""
        os.write(self.told, b".")
        return self._said()

    def _said(self) -> Step:
        line = self.said.readline()
        if not line:
            raise SystemExit(f"a trainer stopped: {' '.join(self.process.args)}\n{self.log.read_text()[-3000:]}")  # type: ignore[arg-type]
        return Step(*(float(number) for number in line.split()))


def _their_environment(peer: Peer, peers: Path) -> dict[str, str]:
    packages = packages_of(peer, peers)
    # which `lora_pipeline.families` has set for this process
    own = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    return {**own, "PYTHONPATH": "" if packages is None else str(packages)}


def _ours(duel: Duel, model: Path, pictures: Path, folder: Path) -> list[str]:
    told: dict[str, Any] = {
        "folder": str(folder / "ours"),
        "model": str(model),
        "pictures": str(pictures),
        "side_px": duel.side_px,
        "repeats": ENDLESS,
        "attention_alone": duel.peer is DIFFUSERS,
        "settings": {
            "seed": SEED,
            "epochs": 1,
            "batch_size": duel.batch,
            "network_dim": RANK,
            "network_alpha": RANK,
            "unet_lr": RATE,
            "lr_scheduler": "constant",
            "min_snr_gamma": 0,
        },
    }
    job = folder / "ours.json"
    job.write_text(json.dumps(told), encoding="utf-8")
    return [str(HERE / "ours.py"), str(job)]


def _theirs(duel: Duel, model: Path, pictures: Path, folder: Path, peers: Path) -> list[str]:
    out = folder / "theirs"
    switches = {
        DIFFUSERS: {
            "instance_data_dir": pictures,
            "instance_prompt": CAPTION,
            "rank": RANK,  # alpha is the rank
            "pre_compute_text_embeddings": None,
            "dataloader_num_workers": 0,
        },
        SD_SCRIPTS: {
            "train_data_dir": pictures.parent,
            "tokenizer_cache_dir": model / "tokenizers",
            "output_name": "lora",
            "network_module": "networks.lora",
            "network_dim": RANK,
            "network_alpha": RANK,
            "network_train_unet_only": None,
            "optimizer_type": "AdamW",
            "cache_latents": None,
            "sdpa": None,
            "max_data_loader_n_workers": 0,
        },
    }[duel.peer]
    same = {
        "pretrained_model_name_or_path": model,
        "output_dir": out,
        "resolution": duel.side_px,
        "train_batch_size": duel.batch,
        "max_train_steps": ENDLESS,
        "learning_rate": RATE,
        "lr_scheduler": "constant",
        "lr_warmup_steps": 0,
        "max_grad_norm": 1.0,
        "mixed_precision": "no",
        "seed": SEED,
    }
    words = [str(script_of(duel.peer, peers))]
    for name, value in {**same, **switches}.items():
        words += [f"--{name}"] if value is None else [f"--{name}", str(value)]
    return words
