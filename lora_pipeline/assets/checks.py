"""Asset checks: where a wrong result would waste a night on the GPU. Those marked blocking stop what is downstream."""

from collections.abc import Sequence

import dagster as dg

from lora_pipeline import flow
from lora_pipeline.errors import PipelineError
from lora_pipeline.flow import Work
from lora_pipeline.manifest import Manifest
from lora_pipeline.stages.fit import objections

CONSENT = dg.AssetCheckSpec(
    "consent_recorded",
    asset="source_photos",
    blocking=True,
    description="For a person, `subject.yaml` says who agreed.",
)
ENOUGH = dg.AssetCheckSpec(
    "enough_photos", asset="curated_photos", blocking=True, description="As many kept photos as training needs."
)
ONE_IDENTITY = dg.AssetCheckSpec(
    "one_identity", asset="face_crops", blocking=True, description="The subject's face is in most of the kept photos."
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


def result(spec: dg.AssetCheckSpec, passed: bool, words: str) -> dg.AssetCheckResult:
    """A check's result, with a sentence. A blocking check that fails is an error, any other a warning."""
    severity = dg.AssetCheckSeverity.ERROR if spec.blocking else dg.AssetCheckSeverity.WARN
    return dg.AssetCheckResult(
        passed=passed, asset_key=spec.asset_key, check_name=spec.name, severity=severity, description=words
    )


def consent_recorded(work: Work) -> dg.AssetCheckResult:
    """A person has agreed."""
    consent = work.subject.consent
    if work.subject.kind != "person":
        return result(CONSENT, True, f"a {work.subject.kind} needs none")
    if consent is None:
        words = f"no consent is recorded: add to {work.store.subject(work.subject.name) / 'subject.yaml'} who agreed (consent: given_by, given_on, scope)"
        return result(CONSENT, False, words)
    return result(CONSENT, True, f"{consent.given_by}, {consent.given_on}: {consent.scope}")


def enough_photos(work: Work, made: Manifest) -> dg.AssetCheckResult:
    """As many kept photos as the settings ask for."""
    kept, needed = len(made.kept), work.settings.check.min_photos
    return result(ENOUGH, kept >= needed, f"{kept} photos are kept, at least {needed} are needed")


def one_identity(work: Work, made: Manifest, photos: int) -> dg.AssetCheckResult:
    """The subject's face is in most of the kept photos."""
    shown = len({str(row.data["photo"]) for row in made.kept})
    share, needed = shown / max(photos, 1), work.settings.check.min_subject_share
    words = f"the subject is in {shown} of {photos} kept photos ({share:.0%}); at least {needed:.0%} are needed"
    if share < needed:
        words += ". Is there a photo to know the face by? Name it as `reference` in subject.yaml"
    return result(ONE_IDENTITY, shown > 0 and share >= needed, words)


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
    texts = {row.id: str(row.data["text"]).strip() for row in made.kept}
    empty = [row.id for row in pictures.kept if work.subject.trigger not in texts.get(row.id, "")]
    words = f"{len(empty)} pictures have no caption with '{work.subject.trigger}': {', '.join(empty[:3])}"
    return result(CAPTIONED, bool(texts) and not empty, words if empty or not texts else f"{len(texts)} captions")


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
