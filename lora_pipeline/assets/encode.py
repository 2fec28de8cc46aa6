"""`training_set`."""

from collections import Counter

from lora_pipeline.assets.checks import COMPLETE, set_complete
from lora_pipeline.assets.report import table
from lora_pipeline.assets.stage import Shown, stage
from lora_pipeline.flow import Outcome, Work
from lora_pipeline.records import Example


@stage("training_set", after=["blurred_set", "captions"], gpu=True, checks=[COMPLETE])
def training_set(work: Work, outcome: Outcome) -> Shown:
    """Pictures and captions as the trainer takes them: buckets, repeats, cached latents and text embeddings."""
    examples = [Example.of(row) for row in outcome.manifest.kept]
    buckets = Counter(f"{width} × {height}" for width, height in (example.bucket for example in examples))
    photos = {example.photo for example in examples}
    shown = {"buckets": table(("bucket", "pictures"), sorted(buckets.items())), "photos": len(photos)}
    return shown, [set_complete(work.made("describe"), outcome.manifest)]
