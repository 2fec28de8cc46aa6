"""Trains the bundled base model from nothing: draw strangers, autoencoder, text encoder, denoiser, reader, save.

    python -m lora_pipeline.demo.train_base

Everything is seeded and goes on where it was stopped. On two CPU cores it takes some five hours.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from lora_pipeline.demo import train_autoencoder, train_denoiser
from lora_pipeline.demo.measure import BASE
from lora_pipeline.demo.reader import WEIGHTS, calibrate, save_reader
from lora_pipeline.demo.strangers import draw_shards, read_shards


def train_base(state: Path, folder: Path, shards: int, autoencoder_steps: int, denoiser_steps: int) -> Path:
    """Keeps unfinished work in `state` and writes the finished pipeline to `folder`."""
    paths = draw_shards(state / "strangers", shards, os.cpu_count() or 1)
    train_autoencoder.train(state, autoencoder_steps)
    train_autoencoder.finish(state, paths[0])
    train_denoiser.train(state, denoiser_steps)
    train_denoiser.save(state, folder)
    save_reader(calibrate(read_shards(paths[:10])), folder / WEIGHTS.name)
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", type=Path, default=Path.home() / ".cache" / "lora_pipeline" / "base")
    parser.add_argument("--folder", type=Path, default=BASE)
    parser.add_argument("--shards", type=int, default=30, help="1,000 pictures each")
    parser.add_argument("--autoencoder-steps", type=int, default=29000)
    parser.add_argument("--denoiser-steps", type=int, default=train_denoiser.ROUNDS[-1])
    told = parser.parse_args()
    print(train_base(told.state, told.folder, told.shards, told.autoencoder_steps, told.denoiser_steps))
