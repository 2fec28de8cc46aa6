"""Asset checks: where a wrong result would waste a night on the GPU. Those marked blocking stop what is downstream."""

from collections.abc import Sequence

import dagster as dg

from lora_pipeline import consent, flow, people, trigger
from lora_pipeline.errors import PipelineError
from lora_pipeline.flow import Work
from lora_pipeline.manifest import Manifest
from lora_pipeline.records import Face
from lora_pipeline.stages.crop import Coverage
from lora_pipeline.stages.describe import names
from lora_pipeline.stages.fit import objections

CONSENT = dg.AssetCheckSpec(
    "consent_recorded",
    asset="source_photos",
    blocking=True,
    description="For a person, `subject.yaml` says who agreed, and that holds today.",
)
STILL_AGREED = dg.AssetCheckSpec(
    "consent_still_holds",
    asset="training_set",
    blocking=True,
    description="On the day on which training begins, the consent covers it and has not ended.",
)
ENOUGH = dg.AssetCheckSpec(
    "enough_photos", asset="curated_photos", blocking=True, description="As many kept photos as training needs."
)
ONE_IDENTITY = dg.AssetCheckSpec(
    "one_identity", asset="face_crops", blocking=True, description="The subject's face is in most of the kept photos."
)
PEOPLE_FOUND = dg.AssetCheckSpec(
    "people_found",
    asset="face_crops",
    blocking=False,
    description="Every face that `people.yaml` speaks of is there, and every word in it is meant as it stands.",
)
COVERAGE = dg.AssetCheckSpec(
    "coverage",
    asset="face_crops",
    blocking=False,
    description="The pictures show what the coverage plan asks for: framings, head angles, light, backgrounds.",
)
HIDDEN = dg.AssetCheckSpec(
    "strangers_hidden", asset="blurred_set", blocking=True, description="Each stranger's face is covered and masked."
)
CAPTIONED = dg.AssetCheckSpec(
    "no_empty_caption",
    asset="captions",
    blocking=True,
    description="Every picture has a caption with the trigger word.",
)
DIFFERENT = dg.AssetCheckSpec(
    "captions_differ",
    asset="captions",
    blocking=False,
    description="No caption stands at more photos than check.max_same_caption allows.",
)
LONG_ENOUGH = dg.AssetCheckSpec(
    "captions_long_enough", asset="captions", blocking=False, description="Captions have describe.min_words or more."
)
RARE_TRIGGER = dg.AssetCheckSpec(
    "trigger_rare",
    asset="captions",
    blocking=False,
    description="The base's tokenizer neither knows the trigger word already nor splits it into too many tokens.",
)
COMPLETE = dg.AssetCheckSpec(
    "set_complete", asset="training_set", blocking=True, description="Every captioned picture is encoded."
)
WITHIN_LIMITS = dg.AssetCheckSpec(
    "training_within_limits",
    asset="training_set",
    blocking=True,
    description="Training is forecast to stay within the limits of time and money, and to fit into memory.",
)
FINITE = dg.AssetCheckSpec(
    "finite_loss", asset="lora_checkpoints", blocking=True, description="Every epoch's loss is a finite number."
)
LOADS = dg.AssetCheckSpec(
    "checkpoint_loads",
    asset="lora_checkpoints",
    blocking=True,
    description="The last LoRA file loads back, its numbers finite.",
)
LEARNED = dg.AssetCheckSpec(
    "learned",
    asset="checkpoint_scores",
    blocking=False,
    description="The chosen epoch is nearer to the subject than the base.",
)


def result(spec: dg.AssetCheckSpec, passed: bool, words: str, **metadata: int) -> dg.AssetCheckResult:
    """A check's result, with a sentence. A blocking check that fails is an error, any other a warning."""
    severity = dg.AssetCheckSeverity.ERROR if spec.blocking else dg.AssetCheckSeverity.WARN
    return dg.AssetCheckResult(
        passed=passed,
        asset_key=spec.asset_key,
        check_name=spec.name,
        severity=severity,
        description=words,
        metadata=metadata,
    )


def consent_recorded(work: Work) -> dg.AssetCheckResult:
    """A person has agreed, and it holds today."""
    return _agreed(CONSENT, work)


def consent_still_holds(work: Work) -> dg.AssetCheckResult:
    """The same, at the last moment before it is trained."""
    return _agreed(STILL_AGREED, work)


def _agreed(spec: dg.AssetCheckSpec, work: Work) -> dg.AssetCheckResult:
    left = None if work.subject.consent is None else consent.days_left(work.subject.consent)
    good, words = not consent.objection(work.subject, "training"), consent.in_words(work.subject)
    return result(spec, good, words, **({} if left is None else {"days_left": left}))


def enough_photos(work: Work, made: Manifest) -> dg.AssetCheckResult:
    """As many kept photos as the settings ask for."""
    kept, needed = len(made.kept), work.settings.check.min_photos
    return result(ENOUGH, kept >= needed, f"{kept} photos are kept, at least {needed} are needed")


def one_identity(work: Work, made: Manifest, photos: int) -> dg.AssetCheckResult:
    """The subject's face is in most of the kept photos."""
    # Where fewer crops are wanted than there are, photos that show the subject have none: their rows have a framing all the same.
    shown = len({str(row.data["photo"]) for row in made.rows if row.state == "kept" or "framing" in row.data})
    share, needed = shown / max(photos, 1), work.settings.check.min_subject_share
    words = f"the subject is in {shown} of {photos} kept photos ({share:.0%}); at least {needed:.0%} are needed"
    if share < needed:
        words += ". Is there a photo to know the face by? Name it as `reference` in subject.yaml"
    return result(ONE_IDENTITY, bool(made.kept) and share >= needed, words)


def covered(work: Work, coverage: Coverage) -> dg.AssetCheckResult:
    """Nothing of the coverage plan is missing."""
    plan = "all that the coverage plan asks for" if work.settings.crop.coverage else "there is no coverage plan"
    there = f"{coverage.pictures} pictures of {coverage.photos} photos: {plan}"
    return result(COVERAGE, not coverage.missing, "; ".join(coverage.missing) or there)


def people_found(work: Work, faces: Sequence[Face]) -> dg.AssetCheckResult:
    """What `people.yaml` says is said of faces that there are."""
    said = people.read(work.store.subject(work.subject.name))
    doubts = said.doubts({face.id for face in faces})
    return result(PEOPLE_FOUND, not doubts, "; ".join(doubts) or f"{len(said.decisions)} faces are settled by hand")


def strangers_hidden(crops: Manifest, made: Manifest) -> dg.AssetCheckResult:
    """Every crop with strangers has as many covers."""
    hidden = {row.id: row.data.get("hidden") for row in made.kept}
    # A picture in which somebody could not be hidden is not kept, and so is none of the set.
    bare = [row.id for row in crops.kept if row.data["strangers"] and not hidden.get(row.id, True)]
    covered = sum(bool(count) for count in hidden.values())
    return result(
        HIDDEN,
        not bare,
        f"strangers in {len(bare)} pictures are not hidden: {', '.join(bare[:3])}"
        if bare
        else f"{covered} pictures have covers",
    )


def no_empty_caption(work: Work, pictures: Manifest, made: Manifest) -> dg.AssetCheckResult:
    """Every picture has words, and the trigger is among them."""
    texts = {row.id: str(row.data["text"]) for row in made.kept}
    empty = [row.id for row in pictures.kept if not texts.get(row.id, "").strip()]
    bare = [id for id, text in texts.items() if text.strip() and not names(text, work.subject.trigger)]
    told = [f"{len(empty)} pictures have no caption: {', '.join(empty[:3])}"] if empty else []
    told += (
        [f"{len(bare)} captions lack the trigger word {work.subject.trigger}: {', '.join(bare[:3])}"] if bare else []
    )
    return result(CAPTIONED, bool(texts) and not told, "; ".join(told) or f"{len(texts)} captions")


def captions_differ(work: Work, made: Manifest) -> dg.AssetCheckResult:
    """One caption for most of the photos teaches nothing but itself."""
    photos: dict[str, set[str]] = {}
    for row in made.kept:
        photos.setdefault(str(row.data["text"]), set()).add(str(row.data["photo"]))
    total = len({photo for those in photos.values() for photo in those})
    text, same = max(photos.items(), key=lambda one: len(one[1]), default=("", set[str]()))
    most = max(1.0, work.settings.check.max_same_caption * total)
    if len(same) > most:
        words = f"{len(same)} of {total} photos have the same caption, '{text}': {', '.join(sorted(same)[:3])}; describe some by hand, or choose another describe.captioner"
        return result(DIFFERENT, False, words)
    return result(DIFFERENT, True, f"{len(photos)} different captions of {total} photos")


def captions_long_enough(work: Work, made: Manifest) -> dg.AssetCheckResult:
    """As many words as the settings ask for."""
    needed = work.settings.describe.min_words
    short = [row.id for row in made.kept if len(str(row.data["text"]).split()) < needed]
    if short:
        words = f"{len(short)} of {len(made.kept)} captions have fewer than {needed} words: {', '.join(short[:3])}"
        return result(LONG_ENOUGH, False, words)
    return result(
        LONG_ENOUGH, True, f"all have {needed} words or more" if needed else "describe.min_words asks for none"
    )


def trigger_rare(work: Work) -> dg.AssetCheckResult:
    """The trigger word before the base's tokenizer."""
    judged = trigger.judged(work.subject.trigger, work.settings)
    return result(RARE_TRIGGER, not judged.against, judged.in_words)


def set_complete(captions: Manifest, made: Manifest) -> dg.AssetCheckResult:
    """Every captioned picture is in the training set."""
    missing = sorted({row.id for row in captions.kept} - {row.id for row in made.kept})
    words = (
        f"{len(missing)} pictures could not be encoded: {', '.join(missing[:3])}"
        if missing
        else f"{len(made.kept)} pictures are encoded"
    )
    return result(COMPLETE, bool(made.kept) and not missing, words)


def training_within_limits(work: Work) -> dg.AssetCheckResult:
    """The forecast of the training that this training set is for."""
    try:
        forecast = flow.forecast(work)
    except PipelineError as error:
        return result(WITHIN_LIMITS, False, str(error))
    if forecast is None:
        return result(WITHIN_LIMITS, True, "nothing is left to train")
    against = objections(forecast, work.settings.forecast, work.settings.fit)
    return result(WITHIN_LIMITS, not against, "; ".join(against) or forecast.in_words(work.settings.forecast))


def finite_loss(losses: Sequence[float]) -> dg.AssetCheckResult:
    """Every epoch's loss is a finite number."""
    import math

    wrong = [number for number, loss in enumerate(losses, start=1) if not math.isfinite(loss)]
    return result(
        FINITE,
        bool(losses) and not wrong,
        f"epochs {wrong} have no finite loss" if wrong else f"{len(losses)} epochs, last loss {losses[-1]:.4f}",
    )


def checkpoint_loads(made: Manifest) -> dg.AssetCheckResult:
    """The last LoRA file can be read, and every number in it is finite."""
    from safetensors import safe_open

    if not made.kept:
        return result(LOADS, False, "there is no checkpoint")
    file = made.path(made.kept[-1], "lora")
    with safe_open(file, framework="numpy") as tensors:
        import numpy as np

        names = list(tensors.keys())
        wrong = [name for name in names if not np.isfinite(tensors.get_tensor(name)).all()]
    words = (
        f"{len(wrong)} of {len(names)} tensors of {file.name} are not finite"
        if wrong
        else f"{file.name}: {len(names)} tensors"
    )
    return result(LOADS, bool(names) and not wrong, words)


def learned(made: Manifest) -> dg.AssetCheckResult:
    """The chosen epoch is nearer to the subject than the base model."""
    chosen = [row for row in made.kept if row.data["chosen"]]
    words = str(chosen[0].data["reason"]) if chosen else "no epoch is chosen"
    return result(LEARNED, bool(chosen) and chosen[0].data.get("learned") is not False, words)
