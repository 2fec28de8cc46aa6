"""The flow: what each of the nine stages takes from the ones before it. No Dagster here.

A notebook, a test, `status` and the Dagster assets all call these functions; an asset adds only what it shows.
Each reads the manifests before it, calls one verb, and returns its outcome.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from lora_pipeline import manifest
from lora_pipeline.errors import SubjectError
from lora_pipeline.manifest import Manifest, Outcome, Stale
from lora_pipeline.progress import Progress, silent
from lora_pipeline.records import Example, Photo, Quality
from lora_pipeline.settings import Settings
from lora_pipeline.stages import collect as collecting
from lora_pipeline.stages import conceal as concealing
from lora_pipeline.stages import crop as cropping
from lora_pipeline.stages import curate as curating
from lora_pipeline.stages import describe as describing
from lora_pipeline.stages import encode as encoding
from lora_pipeline.stages import fit as fitting
from lora_pipeline.stages import grade as grading
from lora_pipeline.stages import publish as publishing
from lora_pipeline.store import Store, write_text
from lora_pipeline.subject import Subject, load, names

USED = "settings.json"


@dataclass(frozen=True)
class Work:
    """One subject on its way through the stages.

    Args:
        store: where files live.
        subject: who.
        settings: the whole settings, changes for this run included.
        progress: told how far along each stage is.
    """

    store: Store
    subject: Subject
    settings: Settings
    progress: Progress = silent

    def folder(self, stage: str) -> Path:
        """Where a stage leaves what it made."""
        return self.store.work(self.subject.name, stage)

    def made(self, stage: str) -> Manifest:
        """What a stage left; without rows if it has not run."""
        return manifest.read(self.folder(stage))


def work(store: Store, name: str, progress: Progress = silent) -> Work:
    """A subject and its settings. Raises SubjectError or SettingsError in words."""
    subject = load(store, name)
    return Work(store, subject, subject.whole_settings(), progress)


def collect(work: Work) -> Outcome:
    """The photo folder, or what stands in its place → `source_photos`."""
    return collecting.collect(
        work.subject.origin, work.folder("collect"), work.settings.collect, work.progress, cropping.yaw_deg
    )


def curate(work: Work) -> Outcome:
    """`source_photos` → `curated_photos`."""
    return curating.curate(work.made("collect"), work.folder("curate"), work.settings.curate, work.progress)


def crop(work: Work) -> Outcome:
    """`curated_photos` → `face_crops`."""
    subject = work.subject
    return cropping.crop(
        work.made("curate"), work.folder("crop"), work.settings.crop, subject.kind, subject.reference, work.progress
    )


def conceal(work: Work) -> Outcome:
    """`face_crops` → `blurred_set`."""
    from lora_pipeline.models.faces import identity, open_detector

    settings = work.settings
    witness = concealing.Witness(
        cropping.decided_faces(work.folder("crop")),
        open_detector(settings.crop),
        identity(settings.crop),
        settings.crop.same_person_distance,
    )
    return concealing.conceal(
        work.made("crop"), work.folder("conceal"), settings.conceal, settings.base, witness, work.progress
    )


def describe(work: Work) -> Outcome:
    """`blurred_set` → `captions`; `curated_photos` has the words for weak photos."""
    tokens = {row.id: quality.tokens for row in work.made("curate").kept if (quality := Quality.of(row)).tokens}
    captions = work.store.subject(work.subject.name) / "captions"
    words = (work.subject.trigger, work.subject.class_word)
    return describing.describe(
        work.made("conceal"),
        work.folder("describe"),
        work.settings.describe,
        captions,
        *words,
        progress=work.progress,
        tokens=tokens,
    )


def encode(work: Work) -> Outcome:
    """`blurred_set` and `captions` → `training_set`."""
    settings = work.settings
    return encoding.encode(
        work.made("conceal"),
        work.made("describe"),
        work.folder("encode"),
        settings.encode,
        settings.base,
        settings.fit.batch_size,
        encoding.Words(work.subject.trigger, work.subject.class_word),
        pool(work) if settings.encode.regularisation_pool else (),
        work.progress,
    )


def pool(work: Work) -> list[encoding.Pooled]:
    """The other subjects of this one's kind and class, and which of them refuse to be its regularisation pictures. Raises SubjectError."""
    mine = work.subject
    others = [load(work.store, name) for name in names(work.store) if name != mine.name]
    return [
        encoding.Pooled(
            other.name, manifest.read(work.store.work(other.name, "conceal")), refused=other.refuses_pool(mine)
        )
        for other in others
        if (other.kind, other.class_word.casefold()) == (mine.kind, mine.class_word.casefold())
    ]


def fit(work: Work, on_epoch: fitting.OnEpoch = fitting.to_nobody) -> Outcome:
    """`training_set` → `lora_checkpoints`. `on_epoch` hears of each epoch while it trains."""
    settings = work.settings
    prompt = work.subject.fill(settings.fit.sample_prompt)
    return fitting.fit(
        work.made("encode"),
        work.folder("fit"),
        settings.fit,
        settings.base,
        prompt,
        on_epoch,
        work.progress,
        settings.grade.guidance_scale,
    )


def as_trained(work: Work) -> Work:
    """The work with the settings that its checkpoints were really trained with, where training had to save memory."""
    trained = fitting.as_trained(work.settings.fit, work.made("fit"))
    return replace(work, settings=work.settings.model_copy(update={"fit": trained}))


def forecast(work: Work) -> fitting.Forecast | None:
    """What training would take, as `fit` would find things now; None if it is finished. A few steps may be tried.

    Raises:
        SubjectError: a person has not agreed to be trained on.
        TrainingError, ModelError: what training would raise.
    """
    _agreed(work)
    subject, settings, folder = work.subject, work.settings, work.folder("fit")
    records = sorted(
        (work.store.data / "work").glob(f"*/fit/runs/*/{fitting.FORECAST}"), key=lambda file: -file.stat().st_mtime
    )
    prompt = subject.fill(settings.fit.sample_prompt)
    return fitting.forecast(work.made("encode"), folder, settings.fit, settings.base, prompt, records)


def _agreed(work: Work) -> None:
    subject = work.subject
    if subject.kind == "person" and subject.consent is None:
        raise SubjectError(
            f"nothing of {subject.name} is trained, not even a step for a forecast: no consent is recorded"
        )


def draw(work: Work) -> Outcome:
    """`lora_checkpoints` → `validation_grids`, and all of them in one picture."""
    settings, folder, checkpoints = work.settings, work.folder("grids"), work.made("fit")
    prompts = tuple(work.subject.fill(prompt) for prompt in settings.grade.prompts)
    outcome = grading.draw_grids(checkpoints, folder, settings.grade, settings.base, prompts, progress=work.progress)
    grading.make_grid(outcome.manifest, checkpoints, folder)
    return outcome


def score(work: Work) -> Outcome:
    """`validation_grids` → `checkpoint_scores`. The face embedder is the one that `crop` knew the subject by."""
    from lora_pipeline.models.faces import embedder, identity

    grids, checkpoints, folder = work.made("grids"), work.made("fit"), work.folder("scores")
    outcome = grading.score(
        grids,
        checkpoints,
        folder,
        work.settings.grade,
        cropping.subject_descriptors(work.folder("crop")),
        embedder(work.settings.crop),
        work.subject.kind,
        work.progress,
        embedder=identity(work.settings.crop),
        pictures=work.made("conceal"),
    )
    grading.make_grid(grids, checkpoints, folder, outcome.manifest)
    return outcome


def publish(work: Work) -> Outcome:
    """The chosen epoch → `released_lora`."""
    subject = work.subject
    photos = {row.id: Photo.of(row).digest for row in work.made("collect").kept}
    training_set = fitting.without_held_out(work.made("encode"), work.settings.fit)
    used = {str(row.data["photo"]) for row in training_set.kept if not row.data.get("regularisation")}
    beside = sum(bool(row.data.get("regularisation")) for row in training_set.kept)
    aside = len(fitting.held_out(training_set).kept)
    card = publishing.CardFacts(
        name=subject.name,
        kind=subject.kind,
        trigger=subject.trigger,
        class_word=subject.class_word,
        consent=None if subject.consent is None else subject.consent.model_dump(mode="json", exclude_defaults=True),
        settings=as_trained(work).settings.model_dump(
            mode="json", exclude={"forecast"}
        ),  # what the person pays is no part of it
        photos=tuple(sorted((photo, photos[photo]) for photo in used)),
        counts={step.noun: len(work.made(step.folder).kept) for step in STEPS if step.verb != "publish"}
        | ({"pictures kept aside": aside} if aside else {})
        | ({"regularisation pictures": beside} if beside else {}),
        examples=tuple(Example.of(row) for row in training_set.kept),
    )
    return publishing.publish(
        work.made("scores"),
        work.made("fit"),
        work.folder("publish"),
        work.settings.publish,
        work.settings.base,
        card,
        work.progress,
    )


@dataclass(frozen=True)
class Step:
    """One asset of the flow.

    Args:
        noun: the asset's name.
        verb: the stage's folder in `stages/`.
        folder: the folder under `data/work/<subject>/`.
        sections: of the settings that it reads; the first is the one that the launchpad offers.
        run: does it.
        code_version: of the stage.
    """

    noun: str
    verb: str
    folder: str
    sections: tuple[str, ...]
    run: Callable[[Work], Outcome]
    code_version: str


STEPS = (
    Step("source_photos", "collect", "collect", ("collect",), collect, collecting.CODE_VERSION),
    Step("curated_photos", "curate", "curate", ("curate",), curate, curating.CODE_VERSION),
    Step("face_crops", "crop", "crop", ("crop",), crop, cropping.CODE_VERSION),
    Step("blurred_set", "conceal", "conceal", ("conceal", "base"), conceal, concealing.CODE_VERSION),
    Step("captions", "describe", "describe", ("describe",), describe, describing.CODE_VERSION),
    Step("training_set", "encode", "encode", ("encode", "base"), encode, encoding.CODE_VERSION),
    Step("lora_checkpoints", "fit", "fit", ("fit", "base"), fit, fitting.CODE_VERSION),
    Step("validation_grids", "grade", "grids", ("grade", "base"), draw, grading.CODE_VERSION),
    Step("checkpoint_scores", "grade", "scores", ("grade",), score, grading.CODE_VERSION),
    Step("released_lora", "publish", "publish", ("publish", "base"), publish, publishing.CODE_VERSION),
)


def take(step: Step, work: Work, run: Callable[[Work], Outcome] | None = None) -> Outcome:
    """Run one step and leave beside its manifest the settings that were really used, for `status` and for people.

    Args:
        run: in place of `step.run`, where the caller binds more arguments (training's reports).
    """
    outcome = (run or step.run)(work)
    write_text(work.folder(step.folder) / USED, json.dumps(used_settings(step, work), indent=1, sort_keys=True))
    return outcome


def make_training_set(work: Work) -> None:
    """Run the steps up to the training set and with it, so that training can be forecast. Raises SubjectError without consent."""
    _agreed(work)
    for step in STEPS[: [step.noun for step in STEPS].index("training_set") + 1]:
        take(step, work)


def used_settings(step: Step, work: Work) -> dict[str, Any]:
    """The sections of the settings that a step has read, as they were really used, and its code version."""
    return _settings_of(step, as_trained(work) if "fit" in step.sections else work)


def _settings_of(step: Step, work: Work) -> dict[str, Any]:
    tree = work.settings.model_dump(mode="json")
    return {**{section: tree[section] for section in step.sections}, "code_version": step.code_version}


@dataclass(frozen=True)
class Standing:
    """How one asset stands: fresh, or what would be done and why, and what it holds now."""

    step: Step
    why: str
    made: Manifest

    @property
    def fresh(self) -> bool:
        """Whether a run would compute nothing here."""
        return not self.why


def status(work: Work) -> list[Standing]:
    """What a run would compute, stage by stage, without computing it.

    Each stage is asked in turn with the manifests that there are; below the first that is not fresh nothing can be said yet,
    but that it waits.
    """
    standings: list[Standing] = []
    waits_on = ""
    for step in STEPS:
        why = f"waits for {waits_on}" if waits_on else _why(step, work)
        waits_on = waits_on or (step.noun if why else "")
        standings.append(Standing(step, why, work.made(step.folder)))
    return standings


def _why(step: Step, work: Work) -> str:
    try:
        with manifest.planning():
            step.run(work)
    except Stale as stale:
        return _in_words(stale, _changed_settings(step, work))
    return ""


def _changed_settings(step: Step, work: Work) -> list[str]:
    try:
        before = cast(dict[str, Any], json.loads((work.folder(step.folder) / USED).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return []
    now = _settings_of(step, work)
    told = [] if before.get("code_version") == step.code_version else ["the code of this stage is newer"]
    for section in step.sections:
        for name, value in now[section].items():
            old = before.get(section, {}).get(name)
            if old != value:
                told.append(f"{section}.{name}: {old} → {value}")
    return told


def _in_words(stale: Stale, settings: Sequence[str]) -> str:
    told = list(settings)
    for reason in sorted(set(stale.would.values())):
        ids = sorted(id for id, why in stale.would.items() if why == reason)
        told.append(f"{len(ids)} {reason} ({', '.join(ids[:3])}{', …' if len(ids) > 3 else ''})")
    if stale.gone:
        told.append(f"{len(stale.gone)} gone ({', '.join(stale.gone[:3])}{', …' if len(stale.gone) > 3 else ''})")
    return "; ".join(told)
