"""`face_crops`."""

from collections import Counter

import dagster as dg

from lora_pipeline import flow
from lora_pipeline.assets.checks import COVERAGE, ONE_IDENTITY, covered, one_identity
from lora_pipeline.assets.report import sheet, table
from lora_pipeline.assets.stage import Shown, stage
from lora_pipeline.flow import Outcome, Work
from lora_pipeline.stages.crop import Coverage


@stage("face_crops", after=["curated_photos"], checks=[ONE_IDENTITY, COVERAGE])
def face_crops(work: Work, outcome: Outcome) -> Shown:
    """Cut-outs of the subject at the training size, in several framings; of kinds without faces, the whole pictures."""
    framings = Counter(str(row.data["framing"]) for row in outcome.manifest.kept)
    coverage = flow.coverage(work)
    shown = {
        "crops": sheet(outcome.manifest, outcome.manifest.kept),
        "framings": dict(framings),
        "coverage": coverage_table(coverage),
        "missing": "; ".join(coverage.missing) or "nothing that the plan asks for",
    }
    return shown, [one_identity(work, outcome.manifest, len(work.made("curate").kept)), covered(work, coverage)]


def coverage_table(coverage: Coverage) -> dg.TableMetadataValue:
    """What is there, what is wanted, and what to add; framings with their shares of the pictures."""
    return table(
        ("what", "shows", "photos", "wanted", "share", "to do"),
        [
            (
                cell.aspect,
                cell.name,
                cell.there,
                cell.wanted or "",
                coverage.share_in_words(cell.name),
                cell.in_words(),
            )
            for cell in coverage.cells
        ],
    )
