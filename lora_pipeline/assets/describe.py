"""`captions`."""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from lora_pipeline import manifest
from lora_pipeline.assets.checks import (
    CAPTIONED,
    DIFFERENT,
    LONG_ENOUGH,
    RARE_TRIGGER,
    captions_differ,
    captions_long_enough,
    no_empty_caption,
    trigger_rare,
)
from lora_pipeline.assets.report import table
from lora_pipeline.assets.stage import Shown, stage
from lora_pipeline.flow import Outcome, Work
from lora_pipeline.manifest import Manifest
from lora_pipeline.records import Row
from lora_pipeline.settings import DescribeSettings
from lora_pipeline.stages.describe import HAND, WORDS


@stage(
    "captions",
    after=["blurred_set", "curated_photos"],
    gpu=True,
    checks=[CAPTIONED, DIFFERENT, LONG_ENOUGH, RARE_TRIGGER],
)
def captions(work: Work, outcome: Outcome) -> Shown:
    """A caption a picture: by a person's hand, by a captioner, or from measurements."""
    made = outcome.manifest
    by_hand = sum(row.data["source"] == HAND for row in made.kept)
    shown = {"by hand": by_hand, "captions": by_whom(made)}
    return {**shown, **spent(work)}, [
        no_empty_caption(work, work.made("conceal"), made),
        captions_differ(work, made),
        captions_long_enough(work, made),
        trigger_rare(work),
    ]


def by_whom(made: Manifest) -> dg.TableMetadataValue:
    """Picture, who wrote its caption (`hand` for a person, whose come first), the caption, and, if of any, what was added to it or left out of it."""
    rows = [
        (row.id, str(row.data["source"]), str(row.data["text"]), str(row.data.get("note") or "")) for row in made.kept
    ]
    rows.sort(key=lambda row: row[1] != HAND)
    columns = ("picture", "by", "caption", "what was done to it")
    shown = len(columns) if any(row[3] for row in rows) else 3
    return table(columns[:shown], [row[:shown] for row in rows])


def spent(work: Work) -> dict[str, Any]:
    """What a language model's words that stand now took; nothing for other captioners."""
    return paid(manifest.read(work.folder("describe"), WORDS).kept, work.settings.describe)


def paid(said: Sequence[Row], settings: DescribeSettings) -> dict[str, Any]:
    """Requests and tokens of a language model's answers, and the cost if the prices are set; nothing if it was asked nothing."""
    total = {
        name: sum(int(str(row.data.get(name) or 0)) for row in said) for name in ("requests", "tokens_in", "tokens_out")
    }
    if not total["requests"]:
        return {}
    cost = (total["tokens_in"] * settings.llm_price_in + total["tokens_out"] * settings.llm_price_out) / 1e6
    return {
        "requests to the language model": total["requests"],
        "tokens sent": total["tokens_in"],
        "tokens answered": total["tokens_out"],
        "cost": round(cost, 4),
    }
