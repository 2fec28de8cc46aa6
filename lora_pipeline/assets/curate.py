"""`curated_photos`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lora_pipeline import verdicts
from lora_pipeline.assets.checks import ENOUGH, enough_photos
from lora_pipeline.assets.report import MAX_PICTURES, picture, sheet, table
from lora_pipeline.assets.stage import Shown, stage
from lora_pipeline.flow import Outcome, Work
from lora_pipeline.manifest import Manifest
from lora_pipeline.records import Box, Quality
from lora_pipeline.stages.curate import text_share

if TYPE_CHECKING:
    from PIL.Image import Image

BARS, WRITING = "deepskyblue", "red"
"""The colours of frames around what is left when bars are cut off, and around lines of writing."""


@stage("curated_photos", after=["source_photos"], checks=[ENOUGH])
def curated_photos(work: Work, outcome: Outcome) -> Shown:
    """The photos that are good enough, copies left out, with what was measured of each."""
    kept = {row.id for row in outcome.manifest.kept}
    source = work.made("collect")
    copies = by_group(outcome.manifest)
    shown = {
        "kept photos": sheet(source, [row for row in source.kept if row.id in kept], "thumbnail"),
        "left out": sheet(source, [row for row in source.kept if row.id not in kept], "thumbnail"),
        "copies, group by group": sheet(
            source, [source.row(id) for id, _ in copies], "thumbnail", [label for _, label in copies]
        ),
        "quality": _quality(outcome.manifest),
        **_by_hand(work, outcome.manifest),
    }
    if framed := framed_photos(source, outcome.manifest):
        shown["what bars leave (blue), and writing (red)"] = picture(framed_sheet(source, framed), "bars and writing")
    return shown, [enough_photos(work, outcome.manifest)]


def by_group(made: Manifest) -> list[tuple[str, str]]:
    """Photos that have copies, the best of each group first, each with the label under its picture: group, best or copy, name."""
    groups: dict[str, list[str]] = {}
    for row in made.rows:
        if best := row.data.get("duplicates"):
            groups.setdefault(str(best), []).append(row.id)
    return [
        (id, f"{number} {'best' if id == best else 'copy'} {id}")
        for number, (best, ids) in enumerate(sorted(groups.items()), start=1)
        for id in sorted(ids, key=lambda id: (id != best, id))
    ]


def framed_photos(source: Manifest, made: Manifest) -> list[tuple[str, Quality]]:
    """Photos whose bars are cut off, or on which writing was found, those with the most writing first."""
    measured = {row.id: Quality.of(row) for row in made.rows if "trim" in row.data}
    found = [
        (row.id, measured[row.id])
        for row in source.kept
        if row.id in measured
        if measured[row.id].text_boxes or measured[row.id].trim != _all_of(measured[row.id])
    ]
    return sorted(found, key=lambda one: (-text_share(one[1]), one[0]))


def framed_sheet(source: Manifest, framed: Sequence[tuple[str, Quality]]) -> "Image":
    """Thumbnails with a frame around what is left without bars, and around each line of writing, whose share of the area stands below if there are any."""
    from PIL import Image, ImageDraw

    from lora_pipeline.pictures import contact_sheet

    pictures: list[Image.Image] = []
    for id, quality in framed[:MAX_PICTURES]:
        with Image.open(source.path(source.row(id), "thumbnail")) as opened:
            thumbnail = opened.convert("RGB")
        scale = thumbnail.width / quality.width_px
        frames = [(box, WRITING) for box in quality.text_boxes]
        frames += [(quality.trim, BARS)] if quality.trim != _all_of(quality) else []
        for (left, top, right, bottom), colour in frames:
            around = (left * scale, top * scale, max(left, right - 1) * scale, max(top, bottom - 1) * scale)
            ImageDraw.Draw(thumbnail).rectangle(around, outline=colour, width=2)
        pictures.append(thumbnail)
    labels = [f"{text_share(quality):.1%}  {id}" if quality.text_boxes else id for id, quality in framed[:MAX_PICTURES]]
    return contact_sheet(pictures, labels, columns=6, side_px=144)


def _all_of(quality: Quality) -> Box:
    return (0, 0, quality.width_px, quality.height_px)


def _by_hand(work: Work, made: Manifest) -> dict[str, object]:
    """What a person decided, and what of it names no photo."""
    decided = verdicts.read(work.store.subject(work.subject.name))
    doubts = verdicts.doubts(decided, [row.id for row in made.rows])
    shown: dict[str, object] = (
        {"decided by hand": table(("photo", "verdict"), sorted(decided.items()))} if decided else {}
    )
    return shown | ({"decided by hand, in vain": table(("what",), [(one,) for one in doubts])} if doubts else {})


def _quality(made: Manifest) -> object:
    rows = [(row.id, Quality.of(row)) for row in made.kept]
    return table(
        (
            "photo",
            "size",
            "true short side",
            "sharpness",
            "brightness",
            "black",
            "white",
            "noise",
            "JPEG blocks",
            "plain",
            "colour",
            "writing",
            "captions say",
            "copies of",
        ),
        [
            (
                id,
                f"{q.width_px} × {q.height_px}",
                f"{q.true_side_px} px",
                f"{q.sharpness:.0f}",
                f"{q.brightness:.2f}",
                *(f"{share:.0%}" for share in (q.clipped_shadows, q.clipped_highlights)),
                f"{q.noise:.1f}",
                f"{q.blocking:.2f}",
                f"{q.plain:.0%}",
                f"{q.colour:.0f}",
                f"{text_share(q):.1%} in {len(q.text_boxes)} lines" if q.text_boxes else "",
                ", ".join(q.tokens),
                q.duplicates,
            )
            for id, q in rows
        ],
    )
