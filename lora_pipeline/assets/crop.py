"""`face_crops`."""

from collections import Counter

from lora_pipeline.assets.checks import ONE_IDENTITY, one_identity
from lora_pipeline.assets.report import sheet
from lora_pipeline.assets.stage import Shown, stage
from lora_pipeline.flow import Outcome, Work


@stage("face_crops", after=["curated_photos"], checks=[ONE_IDENTITY])
def face_crops(work: Work, outcome: Outcome) -> Shown:
    """Square cut-outs of the subject at the training size, in several framings; of kinds without faces, the whole pictures."""
    framings = Counter(str(row.data["framing"]) for row in outcome.manifest.kept)
    shown = {"crops": sheet(outcome.manifest, outcome.manifest.kept), "framings": dict(framings)}
    return shown, [one_identity(work, outcome.manifest, len(work.made("curate").kept))]
