"""`training_set`."""

from collections import Counter
from typing import Any

from lora_pipeline.assets.checks import (
    COMPLETE,
    STILL_AGREED,
    WITHIN_LIMITS,
    consent_still_holds,
    set_complete,
    training_within_limits,
)
from lora_pipeline.assets.report import table
from lora_pipeline.assets.stage import Shown, stage
from lora_pipeline.flow import Outcome, Work
from lora_pipeline.manifest import read
from lora_pipeline.records import Example
from lora_pipeline.stages.encode import FOLDER, GENERATED, POOL, REGULARISATION
from lora_pipeline.stages.fit import without_held_out

_WHOSE = {FOLDER: "a folder's", POOL: "other subjects'", GENERATED: "the base model's"}


@stage("training_set", after=["blurred_set", "captions"], gpu=True, checks=[COMPLETE, STILL_AGREED, WITHIN_LIMITS])
def training_set(work: Work, outcome: Outcome) -> Shown:
    """Pictures and captions as the trainer takes them: buckets, repeats, cached latents and text embeddings."""
    examples = [Example.of(row) for row in outcome.manifest.kept]
    lines = [
        _line(bucket, examples, work.settings.fit.batch_size) for bucket in sorted({one.bucket for one in examples})
    ]
    shown = {
        "buckets": table(("bucket", "pictures", "pictures × repeats", "remarks"), lines),
        "photos": len({example.photo for example in examples if not example.regularisation}),
        **_faces(work.settings.fit.face_loss_weight, examples),
        **_beside(work, outcome),
    }
    complete = set_complete(work.made("describe"), outcome.manifest)
    return shown, [complete, consent_still_holds(work), training_within_limits(work)]


def _faces(weight: float, examples: list[Example]) -> dict[str, Any]:
    """In how many pictures the loss weighs the subject's face, if it weighs any."""
    if weight == 1:
        return {}
    return {f"pictures in which the face counts {weight:g} times": sum(one.face is not None for one in examples)}


def _beside(work: Work, outcome: Outcome) -> dict[str, Any]:
    """Of the regularisation pictures: how many and whose, their share of what is trained on in an epoch, and which cannot be used."""
    unused = [row for row in read(work.folder("encode"), REGULARISATION).rows if row.state != "kept"]
    if not unused and not any(Example.of(row).regularisation for row in outcome.manifest.kept):
        return {}
    trained = without_held_out(outcome.manifest, work.settings.fit).kept
    others = [row for row in trained if Example.of(row).regularisation]
    whose = Counter(_WHOSE[row.id.split("/")[0]] for row in others)
    share = sum(Example.of(row).repeats for row in others) / max(1, sum(Example.of(row).repeats for row in trained))
    return {
        "regularisation pictures": len(others),
        "regularisation pictures by whose they are": dict(whose),
        "regularisation pictures' share of an epoch": f"{share:.0%}",
        "regularisation pictures left out": table(("picture", "why"), [(row.id, row.reason) for row in unused]),
    }


def _line(bucket: tuple[int, int], examples: list[Example], batch_size: int) -> tuple[object, ...]:
    within = [one for one in examples if one.bucket == bucket]
    looks = sum(one.repeats for one in within)
    joined = sorted({one.own_bucket for one in within if one.own_bucket} - {bucket})
    remarks = [f"{_told(own)} would have filled no batch and joined it" for own in joined]
    if looks < batch_size:
        remarks.append(f"fills no batch of {batch_size}")
    return _told(bucket), len(within), looks, "; ".join(remarks)


def _told(bucket: tuple[int, int]) -> str:
    return f"{bucket[0]} × {bucket[1]}"
