"""`validation_grids` and `checkpoint_scores`."""

from collections.abc import Sequence
from typing import Any, cast

import dagster as dg

from lora_pipeline.assets.checks import LEARNED, learned
from lora_pipeline.assets.describe import paid
from lora_pipeline.assets.report import picture, table
from lora_pipeline.assets.stage import Shown, stage
from lora_pipeline.flow import Outcome, Work
from lora_pipeline.manifest import Manifest, read
from lora_pipeline.records import Score
from lora_pipeline.stages.grade import LLM_PROMPTS, STRENGTHS, Drawn, Strength

_HOW = ("seeds", "strengths", "steps", "guidance", "size (px)", "scheduler", "negative prompt")


@stage("validation_grids", after=["lora_checkpoints"], gpu=True)
def validation_grids(work: Work, outcome: Outcome) -> Shown:
    """The validation prompts drawn by the base model and by each epoch, at fixed seeds, in one labelled picture."""
    grid, by_prompt = outcome.manifest.folder / "grid.png", read(outcome.manifest.folder, "by_prompt")
    return {
        "grid": picture(grid, "prompts × epochs"),
        "grid file": str(grid),
        "pictures": len(outcome.manifest.kept),
        "grid of each prompt": table(
            ("prompt", *_HOW, "file"),
            [(row.data["prompt"], *_how(row.id, outcome.manifest), by_prompt.path(row)) for row in by_prompt.kept],
        ),
        **_by_llm(work),
        **_page(work),
    }, []


def _how(prompt: str, grids: Manifest) -> tuple[object, ...]:
    """What the pictures of a prompt (`p01`) were drawn with, in the order of `_HOW`."""
    drawn = [Drawn.of(row) for row in grids.kept if row.id.split("/")[1] == prompt]
    if not drawn:
        return ("",) * len(_HOW)
    told = drawn[0]
    seeds, strengths = ({getattr(one, field) for one in drawn} for field in ("seed", "strength"))
    return (
        ", ".join(map(str, sorted(seeds))),
        ", ".join(f"{one:g}" for one in sorted(strengths)),
        told.sampling_steps,
        told.guidance_scale,
        told.size_px,
        told.scheduler,
        told.negative_prompt,
    )


def _by_llm(work: Work) -> dict[str, Any]:
    """The prompts that a language model wrote, and what they took; nothing where none were wanted."""
    asked = read(work.folder("grids"), LLM_PROMPTS).kept if work.settings.grade.llm_prompts else ()
    written = [(text,) for row in asked for text in cast(list[str], row.data["prompts"])]
    if not written:
        return {}
    return {"prompts by a language model": table(("prompt",), written), **paid(asked, work.settings.describe)}


def _page(work: Work) -> dict[str, Any]:
    """The page to judge by: where it lies, and its address to paste into a browser, which opens no file from a link of a server."""
    page = (work.folder("grids") / "index.html").absolute()
    return {"page": dg.MetadataValue.path(str(page)), "page, as an address": dg.MetadataValue.url(page.as_uri())}


@stage("checkpoint_scores", after=["validation_grids", "lora_checkpoints", "face_crops"], checks=[LEARNED])
def checkpoint_scores(work: Work, outcome: Outcome) -> Shown:
    """What speaks for and against each epoch (likeness, prompts, copies, freedom, drift, damage), and which one is chosen, with the reason."""
    scores = [Score.of(row) for row in outcome.manifest.kept]
    decisions = [(score.epoch or "base", score.role, "; ".join(score.vetoes), score.reason) for score in scores]
    shown: dict[str, object] = {
        "chart": picture(outcome.manifest.folder / "chart.png", "distance to the subject by epoch"),
        "decisions": table(("epoch", "chosen", "vetoes", "reason"), decisions),
        "scores": _measures(scores),
    }
    for score in scores:
        if score.chosen:
            shown |= {"chosen epoch": score.epoch, "reason": score.reason, "advice": score.advice}
        if score.runner_up:
            shown["runner-up"] = score.epoch
    return {**shown, **_strengths(work), **_page(work)}, [learned(outcome.manifest)]


def _strengths(work: Work) -> dict[str, Any]:
    """What each strength of the chosen epoch comes to; nothing if it was drawn at one alone."""
    told = [Strength.of(row) for row in read(work.folder("scores"), STRENGTHS).rows]
    if not told:
        return {}
    rows = [
        (
            one.strength or "base",
            "" if one.identity_distance is None else f"{one.identity_distance:.3f}",
            f"{one.faces_found:.0%}",
            "✓" if one.recommended else "",
        )
        for one in sorted(told, key=lambda one: one.strength)
    ]
    best = next((one.reason for one in told if one.recommended), "none: no strength is nearer than the base model")
    return {
        "strengths": table(("strength", "distance to the subject", "faces found", "recommended"), rows),
        "recommended strength": best,
    }


def _measures(scores: Sequence[Score]) -> dg.TableMetadataValue:
    """A row a measure, a column an epoch: the value and its 95 % interval; which way is better, and what bounds it, in between."""
    arrows = {"less": "↓ less", "more": "↑ more", "same": "= as the base model"}
    columns = ["about", "measure", "better", *("base model" if score.epoch == 0 else f"epoch {score.epoch}" for score in scores), "ceiling"]  # fmt: skip
    by_name = [{measure.name: measure for measure in score.measures} for score in scores]
    rows = [
        (
            one.about,
            one.name,
            arrows[one.better],
            *(measures[one.name].told if one.name in measures else "" for measures in by_name),
            "" if one.ceiling is None else f"{one.ceiling:.3g}",
        )
        for one in (scores[-1].measures if scores else ())
    ]
    return table(columns, rows)
