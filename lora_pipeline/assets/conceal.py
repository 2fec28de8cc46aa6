"""`blurred_set`."""

from lora_pipeline.assets.checks import HIDDEN, strangers_hidden
from lora_pipeline.assets.report import sheet, table
from lora_pipeline.assets.stage import Shown, stage
from lora_pipeline.flow import Outcome, Work


@stage("blurred_set", after=["face_crops"], checks=[HIDDEN])
def blurred_set(work: Work, outcome: Outcome) -> Shown:
    """The crops with other people's faces hidden, and a mask a crop that keeps the hidden pixels out of the loss."""
    covered = [row for row in outcome.manifest.kept if row.data.get("hidden")]
    shown = {
        "with covers": sheet(outcome.manifest, covered),
        "their masks": sheet(outcome.manifest, covered, "mask"),
        "pictures with covers": len(covered),
        "covers": table(
            ("picture", "faces hidden", "cover", "why another than was asked for"),
            [(row.id, *(row.data.get(name, "") for name in ("hidden", "cover", "why"))) for row in covered],
        ),
    }
    return shown, [strangers_hidden(work.made("crop"), outcome.manifest)]
