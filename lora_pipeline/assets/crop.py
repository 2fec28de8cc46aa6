"""`face_crops`."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from lora_pipeline import flow
from lora_pipeline.assets.checks import COVERAGE, ONE_IDENTITY, PEOPLE_FOUND, covered, one_identity, people_found
from lora_pipeline.assets.report import MAX_PICTURES, picture, sheet, table
from lora_pipeline.assets.stage import Shown, stage
from lora_pipeline.flow import Outcome, Work
from lora_pipeline.models.faces import terms
from lora_pipeline.records import Face, Quality
from lora_pipeline.stages.crop import Coverage

if TYPE_CHECKING:
    from PIL.Image import Image

ROUND_A_FACE = 0.6
"""What is shown around an unsure face on each side, as a share of its box's: its hair tells a person more than its box."""


@stage("face_crops", after=["curated_photos"], checks=[ONE_IDENTITY, COVERAGE, PEOPLE_FOUND])
def face_crops(work: Work, outcome: Outcome) -> Shown:
    """Cut-outs of the subject at the training size, in several framings; of kinds without faces, the whole pictures."""
    framings = Counter(str(row.data["framing"]) for row in outcome.manifest.kept)
    coverage, faces = flow.coverage(work), flow.faces(work)
    shown: dict[str, Any] = {
        "crops": sheet(outcome.manifest, outcome.manifest.kept),
        "framings": dict(framings),
        "coverage": coverage_table(coverage),
        "missing": "; ".join(coverage.missing) or "nothing that the plan asks for",
        "faces": dict(Counter(face.whose for face in faces)),
    }
    if faces:
        shown["each face, whose it is, and why"] = faces_table(faces)
    if told := terms(work.settings.crop):
        shown["terms of the models that were chosen"] = "; ".join(told)
    if masked := [row for row in outcome.manifest.kept if "subject_mask" in row.files]:
        shown["masks of the subject"] = sheet(outcome.manifest, masked, "subject_mask")
    if unsure := flow.unsure(faces):
        columns = ("face (to settle in people.yaml)", "photo", "distance to the subject")
        shown["unsure faces"] = table(columns, [(face.id, face.photo, f"{face.distance:.3f}") for face in unsure])
        shown["unsure faces, in the table's order"] = picture(unsure_sheet(work, unsure), "unsure faces")
    if unseen := flow.unseen_persons(work):
        shown["people whose faces are not seen"] = table(("photo", "people"), sorted(unseen.items()))
    if beside := [row for row in outcome.manifest.kept if row.data.get("persons")]:
        shown["crops with other people in them"] = sheet(outcome.manifest, beside)
    return shown, [
        one_identity(work, outcome.manifest, len(work.made("curate").kept)),
        covered(work, coverage),
        people_found(work, faces),
    ]


def faces_table(faces: Sequence[Face]) -> dg.TableMetadataValue:
    """Every face, whose it is and by whose word, its distance from the subject, the head's angles (degrees), and its expression as scored."""

    def angle(deg: float | None) -> str:
        return "" if deg is None else f"{deg:+.0f}°"

    def by(face: Face) -> str:
        return "a person" if face.by_hand else "the photo library" if face.known else "distance"

    return table(
        ("face", "whose", "name", "says", "distance", "yaw", "pitch", "roll", "expression"),
        [
            (
                face.id,
                face.whose,
                face.name,
                by(face),
                "" if face.distance is None else f"{face.distance:.3f}",
                *(angle(deg) for deg in (face.yaw_deg, face.pitch_deg, face.roll_deg)),
                ", ".join(f"{label} {score:.0%}" for label, score in face.expression),
            )
            for face in faces
        ],
    )


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


def unsure_sheet(work: Work, faces: Sequence[Face]) -> "Image":
    """Those faces with what is around them, each in its frame, with its number in the photo, its distance and its photo's name."""
    from PIL import ImageDraw

    from lora_pipeline.pictures import contact_sheet, open_upright

    photos = {row.id: Quality.of(row) for row in work.made("curate").kept}
    pictures: list[Image] = []
    for face in faces[:MAX_PICTURES]:
        left, top, right, bottom = face.box
        photo = open_upright(Path(photos[face.photo].path))
        around = round(ROUND_A_FACE * (right - left))
        ImageDraw.Draw(photo).rectangle((left, top, right - 1, bottom - 1), outline="red", width=max(1, around // 20))
        region = (max(0, left - around), max(0, top - around), right + around, bottom + around)
        pictures.append(photo.crop((*region[:2], min(region[2], photo.width), min(region[3], photo.height))))
    labels = [f"#{face.id.rpartition('#')[2]}  {face.distance:.2f}  {face.photo}" for face in faces[:MAX_PICTURES]]
    return contact_sheet(pictures, labels, columns=6, side_px=144)
