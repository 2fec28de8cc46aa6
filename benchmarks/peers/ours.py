"""`python ours.py JOB.json`: encodes the pictures and trains on them, as the stages `encode` and `fit` do."""

import json
import sys
from pathlib import Path

from benchmarks.pictures import training_set
from lora_pipeline.families import FAMILIES
from lora_pipeline.families.sd15 import StableDiffusion15
from lora_pipeline.manifest import write
from lora_pipeline.settings import BaseSettings, FitSettings
from lora_pipeline.stages.fit.job import Job
from lora_pipeline.stages.fit.run import run


class AttentionAlone(StableDiffusion15):
    """A LoRA where train_dreambooth_lora.py has one."""

    lora_targets = ("to_q", "to_k", "to_v", "to_out.0")


def main() -> None:
    """Train until somebody ends it."""
    told = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if told["attention_alone"]:
        FAMILIES["sd15"] = AttentionAlone()
    folder, base = Path(told["folder"]), BaseSettings(family="sd15", model=told["model"])
    encoded = training_set(Path(told["pictures"]), folder, base, told["side_px"], told["repeats"]).manifest
    job = Job("0" * 64, folder / "run", encoded.folder, encoded.digest, FitSettings(**told["settings"]), base, "")
    job.run.mkdir()
    write(job.run, encoded.rows, "trained_on")
    for _ in run(job, device="cpu"):
        pass


main()
