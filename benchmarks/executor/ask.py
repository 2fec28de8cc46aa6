"""Which executor should be the default? A run over 1,000 photos in which nothing is to be done, everything included.

The photos are small drawings of a thing without a face: the question is what Dagster and the memo cost, not what a detector costs.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import dagster as dg

from lora_pipeline import subject
from lora_pipeline.assets.launch import dagster_home
from lora_pipeline.assets.partitions import register
from lora_pipeline.store import Store
from lora_pipeline.subject import Subject

PHOTOS = 1000


def ask() -> dict[str, object]:
    """Seconds of the first run and of a second, third and fourth that compute nothing, by executor."""
    answer: dict[str, object] = {"photos": PHOTOS}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        draw(home)
        dagster_home(Store(home / "data"))
        with dg.DagsterInstance.get() as instance:
            register(instance, Store(home / "data"))
        answer["first run, in_process, s"] = timed(home, "in_process")
        for executor in ("in_process", "multiprocess"):
            answer[f"no-op run, {executor}, s"] = [timed(home, executor) for _ in range(3)]
    return answer


def draw(home: Path) -> None:
    """A subject of 1,000 small pictures that are no copies of each other."""
    import numpy as np
    from PIL import Image

    photos = home / "photos"
    photos.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(PHOTOS):
        coarse = Image.fromarray(random.integers(0, 255, (8, 8, 3), dtype=np.uint8))
        coarse.resize((320, 320), Image.Resampling.NEAREST).save(photos / f"{number:04d}.jpg")
    changes = {
        "fit": {"epochs": 1, "batch_size": 50, "sample_prompt": ""},
        "grade": {"seeds": [1], "sampling_steps": 2},
    }
    given = {
        "name": "thing",
        "kind": "style",
        "photos": photos,
        "trigger": "zx1",
        "class": "pattern",
        "recipe": "bundled_pet",
        "settings": changes,
    }
    subject.new(Store(home / "data"), Subject.model_validate(given))


def timed(home: Path, executor: str) -> float:
    """Seconds of one whole process that materializes everything."""
    begun = time.monotonic()
    dagster = dagster_home(Store(home / "data"))
    environment = {
        **os.environ,
        "LORA_PIPELINE_HOME": str(home),
        "LORA_PIPELINE_EXECUTOR": executor,
        "DAGSTER_HOME": str(dagster),
    }
    command = [
        "asset",
        "materialize",
        "--select",
        "*",
        "--partition",
        "thing",
        "--module-name",
        "lora_pipeline.definitions",
    ]
    subprocess.run([sys.executable, "-m", "dagster", *command], check=True, env=environment, capture_output=True)
    return round(time.monotonic() - begun, 2)
