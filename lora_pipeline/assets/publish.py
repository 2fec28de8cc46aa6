"""`released_lora`."""

import dagster as dg

from lora_pipeline.assets.stage import Shown, stage
from lora_pipeline.flow import Outcome, Work


@stage("released_lora", after=["checkpoint_scores", "lora_checkpoints"])
def released_lora(work: Work, outcome: Outcome) -> Shown:
    """The chosen epoch as a file that other programs load, its card, and the record of what it was made from."""
    made = outcome.manifest
    row = made.kept[0]
    card = made.path(row, "card").read_text(encoding="utf-8")
    return {"LoRA file": dg.MetadataValue.path(str(made.path(row, "lora"))), "card": dg.MetadataValue.md(card)}, []
