"""`validation_grids` and `checkpoint_scores`."""

from lora_pipeline.assets.checks import LEARNED, learned
from lora_pipeline.assets.report import picture, table
from lora_pipeline.assets.stage import Shown, stage
from lora_pipeline.flow import Outcome, Work
from lora_pipeline.records import Score


@stage("validation_grids", after=["lora_checkpoints"], gpu=True)
def validation_grids(work: Work, outcome: Outcome) -> Shown:
    """The validation prompts drawn by the base model and by each epoch, at fixed seeds, in one labelled picture."""
    grid = outcome.manifest.folder / "grid.png"
    return {
        "grid": picture(grid, "prompts × epochs"),
        "grid file": str(grid),
        "pictures": len(outcome.manifest.kept),
    }, []


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
    return shown, [learned(outcome.manifest)]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
