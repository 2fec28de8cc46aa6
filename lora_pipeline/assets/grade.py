"""`validation_grids` and `checkpoint_scores`."""

from typing import Any

import dagster as dg

from lora_pipeline.assets.checks import LEARNED, learned
from lora_pipeline.assets.report import picture, table
from lora_pipeline.assets.stage import Shown, stage
from lora_pipeline.flow import Outcome, Work
from lora_pipeline.manifest import read
from lora_pipeline.records import Score
from lora_pipeline.stages.grade import STRENGTHS, Strength


@stage("validation_grids", after=["lora_checkpoints"], gpu=True)
def validation_grids(work: Work, outcome: Outcome) -> Shown:
    """The validation prompts drawn by the base model and by each epoch, at fixed seeds, in one labelled picture."""
    grid, by_prompt = outcome.manifest.folder / "grid.png", read(outcome.manifest.folder, "by_prompt")
    return {
        "grid": picture(grid, "prompts × epochs"),
        "grid file": str(grid),
        "pictures": len(outcome.manifest.kept),
        "grid of each prompt": table(
            ("prompt", "file"), [(row.data["prompt"], by_prompt.path(row)) for row in by_prompt.kept]
        ),
        **_page(work),
    }, []


def _page(work: Work) -> dict[str, Any]:
    """The page to judge by: where it lies, and its address to paste into a browser, which opens no file from a link of a server."""
    page = (work.folder("grids") / "index.html").absolute()
    return {"page": dg.MetadataValue.path(str(page)), "page, as an address": dg.MetadataValue.url(page.as_uri())}


@stage("checkpoint_scores", after=["validation_grids", "lora_checkpoints", "face_crops"], checks=[LEARNED])
def checkpoint_scores(work: Work, outcome: Outcome) -> Shown:
    """How near each epoch comes to the subject, and which one is chosen, with the reason."""
    scores = [Score.of(row) for row in outcome.manifest.kept]
    rows = [
        (
            score.epoch or "base",
            _number(score.identity_distance),
            f"{score.faces_found:.0%}",
            "✓" if score.chosen else "",
            score.reason,
        )
        for score in scores
    ]
    chosen = [score for score in scores if score.chosen]
    shown: dict[str, object] = {
        "scores": table(("epoch", "identity distance", "faces found", "chosen", "reason"), rows)
    }
    if chosen:
        shown |= {"chosen epoch": chosen[0].epoch, "reason": chosen[0].reason}
    return {**shown, **_strengths(work), **_page(work)}, [learned(outcome.manifest)]


def _strengths(work: Work) -> dict[str, Any]:
    """What each strength of the chosen epoch comes to; nothing if it was drawn at one alone."""
    told = [Strength.of(row) for row in read(work.folder("scores"), STRENGTHS).rows]
    if not told:
        return {}
    rows = [
        (
            one.strength or "base",
            _number(one.identity_distance),
            f"{one.faces_found:.0%}",
            "✓" if one.recommended else "",
        )
        for one in sorted(told, key=lambda one: one.strength)
    ]
    best = next((one.reason for one in told if one.recommended), "none: no strength is nearer than the base model")
    return {
        "strengths": table(("strength", "identity distance", "faces found", "recommended"), rows),
        "recommended strength": best,
    }


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
