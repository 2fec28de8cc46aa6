"""`released_lora`."""

import re
from dataclasses import replace
from typing import Any

import dagster as dg

from lora_pipeline import recall
from lora_pipeline.assets.report import sheet
from lora_pipeline.assets.stage import Shown, stage
from lora_pipeline.flow import Outcome, Work
from lora_pipeline.records import Score


@stage("released_lora", after=["checkpoint_scores", "lora_checkpoints"])
def released_lora(work: Work, outcome: Outcome) -> Shown:
    """The chosen epoch as a file that other programs load, its card, and the record of what it was made from."""
    made = outcome.manifest
    row = made.kept[0]
    card = re.sub(r"^!\[.*\]\(images/.*\)$", "", made.path(row, "card").read_text(encoding="utf-8"), flags=re.MULTILINE)
    shown: dict[str, Any] = {
        "LoRA file": dg.MetadataValue.path(str(made.path(row, "lora"))),
        "card": dg.MetadataValue.md(card),
        **_why(work),
    }
    pictures = [replace(row, files={"picture": file}) for role, file in row.files.items() if role.startswith("picture")]
    if pictures:
        shown["pictures on the card"] = sheet(made, pictures)
    told = recall.recalled(made.folder)
    if told is not None and told.holds(file.digest for file in row.files.values()):
        shown["recalled"] = told.in_words()
    return shown, []


def _why(work: Work) -> dict[str, Any]:
    """Which epoch it is, why, and who said so: the card, which tells it too, is a click away."""
    chosen = next((score for score in map(Score.of, work.made("scores").kept) if score.chosen), None)
    if chosen is None:
        return {}
    by = "a person" if chosen.picked else "the rule"
    return {"epoch": chosen.epoch, "chosen by": by, "why": chosen.reason}
