"""`captions`."""

from lora_pipeline.assets.checks import CAPTIONED, no_empty_caption
from lora_pipeline.assets.report import table
from lora_pipeline.assets.stage import Shown, stage
from lora_pipeline.flow import Outcome, Work


@stage("captions", after=["blurred_set", "curated_photos"], gpu=True, checks=[CAPTIONED])
def captions(work: Work, outcome: Outcome) -> Shown:
    """A caption a picture: by a person's hand, by a captioner, or from measurements."""
    rows = [(row.id, row.data["source"], row.data["text"]) for row in outcome.manifest.kept]
    return {"captions": table(("picture", "by", "caption"), rows)}, [
        no_empty_caption(work, work.made("conceal"), outcome.manifest)
    ]
