"""`training_set`."""

from lora_pipeline.assets.checks import COMPLETE, set_complete
from lora_pipeline.assets.report import table
from lora_pipeline.assets.stage import Shown, stage
from lora_pipeline.flow import Outcome, Work
from lora_pipeline.records import Example


@stage("training_set", after=["blurred_set", "captions"], gpu=True, checks=[COMPLETE])
def training_set(work: Work, outcome: Outcome) -> Shown:
    """Pictures and captions as the trainer takes them: buckets, repeats, cached latents and text embeddings."""
    examples = [Example.of(row) for row in outcome.manifest.kept]
    lines = [
        _line(bucket, examples, work.settings.fit.batch_size) for bucket in sorted({one.bucket for one in examples})
    ]
    shown = {
        "buckets": table(("bucket", "pictures", "pictures × repeats", "remarks"), lines),
        "photos": len({example.photo for example in examples}),
    }
    return shown, [set_complete(work.made("describe"), outcome.manifest)]


def _line(bucket: tuple[int, int], examples: list[Example], batch_size: int) -> tuple[object, ...]:
    within = [one for one in examples if one.bucket == bucket]
    looks = sum(one.repeats for one in within)
    joined = sorted({one.own_bucket for one in within if one.own_bucket} - {bucket})
    remarks = [f"{_told(own)} would have filled no batch and joined it" for own in joined]
    if looks < batch_size:
        remarks.append(f"fills no batch of {batch_size}")
    return _told(bucket), len(within), looks, "; ".join(remarks)


def _told(bucket: tuple[int, int]) -> str:
    return f"{bucket[0]} × {bucket[1]}"
