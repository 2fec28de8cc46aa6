"""`curated_photos`."""

from lora_pipeline import verdicts
from lora_pipeline.assets.checks import ENOUGH, enough_photos
from lora_pipeline.assets.report import sheet, table
from lora_pipeline.assets.stage import Shown, stage
from lora_pipeline.flow import Outcome, Work
from lora_pipeline.manifest import Manifest
from lora_pipeline.records import Quality
from lora_pipeline.stages.curate import text_share


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
