"""`source_photos`."""

from lora_pipeline.assets.checks import CONSENT, consent_recorded
from lora_pipeline.assets.report import sheet
from lora_pipeline.assets.stage import Shown, stage
from lora_pipeline.flow import Outcome, Work


@stage("source_photos", checks=[CONSENT])
def source_photos(work: Work, outcome: Outcome) -> Shown:
    """The photos in the subject's folder, a row a photo: content hash, upright size, and why one was refused."""
    return {"photos": sheet(outcome.manifest, outcome.manifest.kept, "thumbnail")}, [consent_recorded(work)]
