"""`source_photos`."""

from collections import Counter
from typing import cast

from lora_pipeline import manifest
from lora_pipeline.assets.checks import CONSENT, consent_recorded
from lora_pipeline.assets.report import sheet, table
from lora_pipeline.assets.stage import Shown, stage
from lora_pipeline.flow import Outcome, Work
from lora_pipeline.records import Photo
from lora_pipeline.stages.collect import FRAMES, role_of


@stage("source_photos", checks=[CONSENT])
def source_photos(work: Work, outcome: Outcome) -> Shown:
    """The photos of the subject, from a folder, videos or a library, a row a photo: content hash, upright size, and why one was refused."""
    kept = outcome.manifest.kept
    shown: dict[str, object] = {"photos": sheet(outcome.manifest, kept, "thumbnail")}
    if tags := Counter(tag for row in kept for tag in Photo.of(row).tags):
        shown["tags, by the folders' names"] = table(("tag", "photos"), sorted(tags.items()))
    if frames := chosen_frames(work):
        shown["frames of videos"] = table(("video", "second", "head yaw", "sharpness"), frames)
    return shown, [consent_recorded(work)]


def chosen_frames(work: Work) -> list[tuple[str, str, str, str]]:
    """Of each frame that was taken: its video, its second, how far the head is turned (degrees), and the sharpness that it was chosen for."""
    return [
        (row.id, f"{at_s:.3f}", "no face" if yaw_deg is None else f"{yaw_deg:+.0f}°", f"{sharpness:.0f}")
        for row in manifest.read(work.folder("collect"), FRAMES).kept
        for at_s, yaw_deg, sharpness in cast(list[tuple[float, float | None, float]], row.data["frames"])
        if role_of(at_s) in row.files  # and not forgotten since
    ]
