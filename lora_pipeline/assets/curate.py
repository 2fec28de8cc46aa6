"""`curated_photos`."""

from lora_pipeline.assets.checks import ENOUGH, enough_photos
from lora_pipeline.assets.report import sheet, table
from lora_pipeline.assets.stage import Shown, stage
from lora_pipeline.flow import Outcome, Work
from lora_pipeline.manifest import Manifest
from lora_pipeline.records import Quality


@stage("curated_photos", after=["source_photos"], checks=[ENOUGH])
def curated_photos(work: Work, outcome: Outcome) -> Shown:
    """The photos that are good enough, copies left out, with what was measured of each."""
    kept = {row.id for row in outcome.manifest.kept}
    source = work.made("collect")
    shown = {
        "kept photos": sheet(source, [row for row in source.kept if row.id in kept], "thumbnail"),
        "left out": sheet(source, [row for row in source.kept if row.id not in kept], "thumbnail"),
        "quality": _quality(outcome.manifest),
    }
    return shown, [enough_photos(work, outcome.manifest)]


def _quality(made: Manifest) -> object:
    rows = [(row.id, Quality.of(row)) for row in made.kept]
    return table(
        ("photo", "size", "sharpness", "brightness", "copies of"),
        [
            (id, f"{q.width_px} × {q.height_px}", f"{q.sharpness:.0f}", f"{q.brightness:.2f}", q.duplicates)
            for id, q in rows
        ],
    )
