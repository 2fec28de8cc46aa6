"""The flow: what each of the nine stages takes from the ones before it. No Dagster here.

A notebook, a test, `status` and the Dagster assets all call these functions; an asset adds only what it shows.
Each reads the manifests before it, calls one verb, and returns its outcome.
"""

import datetime
import difflib
import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lora_pipeline import consent, lineage, manifest, people, recall, verdicts
from lora_pipeline.errors import PipelineError, SettingsError, SubjectError
from lora_pipeline.families import give_back_memory
from lora_pipeline.manifest import Manifest, Outcome, Stale
from lora_pipeline.pictures import save
from lora_pipeline.progress import Progress, silent
from lora_pipeline.records import Example, Face, Photo, Quality, Row, Score
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
from lora_pipeline.store import Store, digest_file, write_text
from lora_pipeline.subject import Subject, load, names

if TYPE_CHECKING:
    from PIL.Image import Image

USED = "settings.json"
REVIEW = "review"
"""Folder beside the stages' of what the page shows: faces cut out of photos, and copies for the browser while it is open."""


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
        work.subject.origin,
        work.folder("collect"),
        work.settings.collect,
        work.progress,
        cropping.yaw_deg,
        recall.forgotten(work.store.subject(work.subject.name)),
    )


def curate(work: Work) -> Outcome:
    """`source_photos` → `curated_photos`; what a person decided wins."""
    return curating.curate(
        work.made("collect"),
        work.folder("curate"),
        work.settings.curate,
        work.progress,
        verdicts.read(work.store.subject(work.subject.name)),
    )


def crop(work: Work) -> Outcome:
    """`curated_photos` → `face_crops`. Crops that need not be square take the shapes of the training set's buckets."""
    subject, settings = work.subject, work.settings
    outcome = cropping.crop(
        work.made("curate"),
        work.folder("crop"),
        settings.crop,
        subject.kind,
        subject.references,
        work.progress,
        encoding.buckets(settings.encode),
        people.read(work.store.subject(subject.name)),
        subject.class_word,
    )
    give_back_memory()  # as after `describe`: what looked for things and expressions
    return outcome


def faces(work: Work) -> list[Face]:
    """The faces of all photos, and whose they are as `crop` last decided, in order of photo and place."""
    decided = cropping.decided_faces(work.folder("crop"))
    return [face for _, found in sorted(decided.items()) for face in sorted(found, key=lambda face: face.box)]


def unsure(faces: Sequence[Face]) -> list[Face]:
    """Those that a person is to settle, the nearest to the subject first."""
    return sorted(
        (face for face in faces if face.whose == "unsure"),
        key=lambda face: (face.distance or 0.0, face.photo, face.box),
    )


def unseen_persons(work: Work) -> dict[str, int]:
    """Photo → how many people on it show no face, as `crop` last found; nothing where people are not looked for."""
    looked_for = work.subject.kind == "person" and work.settings.crop.yolo_person_weights
    return cropping.unseen_persons(work.folder("crop")) if looked_for else {}


def coverage(work: Work) -> cropping.Coverage:
    """What `face_crops` shows, and what is missing of the plan; nothing if it has not run."""
    return cropping.coverage(work.folder("crop"), work.settings.crop)


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
    """`blurred_set` → `captions`; `curated_photos` has the words for weak photos. Raises SubjectError if pictures may not be sent out."""
    _may_send(work)
    tokens = {row.id: quality.tokens for row in work.made("curate").kept if (quality := Quality.of(row)).tokens}
    captions = work.store.subject(work.subject.name) / "captions"
    words = (work.subject.trigger, work.subject.class_word)
    outcome = describing.describe(
        work.made("conceal"),
        work.folder("describe"),
        work.settings.describe,
        captions,
        *words,
        progress=work.progress,
        tokens=tokens,
    )
    give_back_memory()  # training, in a process of its own, wants what the captioner had
    return outcome


def _may_send(work: Work) -> None:
    """Raise SubjectError if the captioner would send a person's pictures to a service outside, and their consent does not cover it.

    Raises SettingsError if anybody on the way there could look at them.
    """
    subject, settings = work.subject, work.settings.describe
    if manifest.is_planning() or not describing.sends_out(settings):
        return
    if not settings.llm_address.startswith("https://"):
        raise SettingsError(
            f"describe.llm_address {settings.llm_address} is outside, and pictures and key would go there unencrypted: write https://"
        )
    if wrong := consent.objection(subject, "outside_services"):
        raise SubjectError(
            f"describe.captioner llm would send pictures of {subject.name} to {settings.llm_address}: {wrong}. Or set describe.llm_address to a "
            "model of your own (localhost, or a private address in numbers), or describe.captioner to another"
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
        faces=settings.fit.face_loss_weight != 1,
    )


def pool(work: Work) -> list[encoding.Pooled]:
    """The other subjects of this one's kind and class, and which of them refuse to be its regularisation pictures. Raises SubjectError."""
    mine = work.subject
    others = [load(work.store, name) for name in names(work.store) if name != mine.name]
    return [
        encoding.Pooled(
            other.name,
            manifest.read(work.store.work(other.name, "conceal")),
            refused=other.refuses_pool(mine) or consent.objection(other, "training"),
        )
        for other in others
        if (other.kind, other.class_word.casefold()) == (mine.kind, mine.class_word.casefold())
    ]


def fit(work: Work, on_epoch: fitting.OnEpoch = fitting.to_nobody) -> Outcome:
    """`training_set` → `lora_checkpoints`. `on_epoch` hears of each epoch while it trains."""
    _agreed(work)
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
        SubjectError: a person has not agreed to be trained on, or not for so long.
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
    if not manifest.is_planning():  # what would be done may be said
        consent.refuse(work.subject, "training")


def draw(work: Work) -> Outcome:
    """`lora_checkpoints` → `validation_grids`, all of them in one picture, those of each prompt in one, and the page to judge by."""
    _agreed(work)
    folder, checkpoints, asked = work.folder("grids"), work.made("fit"), _asked(work)
    settings = work.settings.grade.model_copy(update={"negative_prompt": asked.negative})
    others = _of_others(work)
    outcome = grading.draw_grids(
        checkpoints,
        folder,
        settings,
        work.settings.base,
        (*asked.texts, *others),
        progress=work.progress,
        others=set(others) - set(asked.texts),
    )
    grading.make_grid(outcome.manifest, checkpoints, folder)
    grading.make_prompt_grids(outcome.manifest, folder)
    _make_page(work, outcome.manifest)
    return outcome


def _of_others(work: Work) -> tuple[str, ...]:
    """The prompts of others of the class, filled in."""
    return tuple(work.subject.fill(prompt) for prompt in work.settings.grade.other_prompts)


def _asked(work: Work) -> grading.Prompts:
    """The validation prompts of the subject, filled in."""
    subject = work.subject
    asked = grading.prompts_of(work.settings.grade, subject.kind, work.store.subject(subject.name))
    texts = (*asked.texts, *_by_llm(work, asked.texts))
    return replace(asked, texts=tuple(subject.fill(prompt) for prompt in texts))


def _by_llm(work: Work, prompts: Sequence[str]) -> tuple[str, ...]:
    """Prompts that the language model of the captions writes, if any are wanted. Words alone go there, so no consent is asked for.

    Raises SettingsError if the key would go there unencrypted.
    """
    from lora_pipeline.models.llm import Llm, is_outside

    subject, settings, count = work.subject, work.settings.describe, work.settings.grade.llm_prompts
    if not count:
        return ()
    if is_outside(settings.llm_address) and not settings.llm_address.startswith("https://"):
        raise SettingsError(
            f"describe.llm_address {settings.llm_address} is outside, and words and key would go there unencrypted: write https://"
        )
    writer = Llm(
        settings.llm_address,
        settings.llm_model,
        "",
        key_env=settings.llm_key_env,
        attempts=settings.llm_attempts,
        timeout_s=settings.llm_timeout_s,
        requests_per_minute=settings.llm_requests_per_minute,
    )
    words = (subject.trigger, subject.class_word)
    return grading.llm_prompts(prompts, count, *words, work.folder("grids"), writer, work.progress)


def _make_page(work: Work, grids: Manifest, scores: Manifest | None = None) -> None:
    checkpoints, subject = work.made("fit"), work.subject
    curve = next((checkpoints.path(row, "lora").with_name("loss.png") for row in checkpoints.kept), None)
    title = f"{subject.name}: {subject.trigger} {subject.class_word}"
    chart = None if scores is None else scores.folder / "chart.png"
    grading.make_page(grids, checkpoints, subject.name, title, curve, scores, chart)


def redraw(work: Work, of: str) -> grading.Redrawn:
    """Draw a validation picture again from what it says of itself, and compare it to the pixel; if it differs, keep it in `grids/redrawn`.

    Args:
        of: its id (`e0003/p02/s0001`), or the path of a PNG, wherever that lies now.

    Raises:
        SubjectError: the consent does not hold any more.
        PipelineError: there is no such picture, it does not say how it was drawn, or its LoRA or base model is not there any more.
    """
    _agreed(work)
    grids = work.made("grids")
    named = [grids.path(row) for row in grids.kept if row.id == of.removesuffix(".png")]
    path = named[0] if named else Path(of).expanduser()
    if not path.is_file():
        near = difflib.get_close_matches(of, [row.id for row in grids.kept], n=3, cutoff=0.4)
        hint = f"; did you mean {' or '.join(near)}?" if near else f"; there are those in {grids.folder}"
        raise PipelineError(f"{work.subject.name} has no validation picture '{of}', and there is no such file{hint}")
    drawn = grading.read_told(path)
    lora = _checkpoint_file(work, drawn.checkpoint) if drawn.checkpoint else None
    again = grading.redraw(path, drawn, lora, work.settings.base)
    if again.differing:
        save(again.picture, grids.folder / "redrawn" / path.name)
    return again


def _checkpoint_file(work: Work, digest: str) -> Path:
    """The file of a checkpoint, of whichever run that is kept."""
    checkpoints = work.made("fit")
    named = [checkpoints.path(row, "lora") for row in checkpoints.kept if row.files["lora"].digest == digest]
    for path in (*named, *sorted(work.folder("fit").rglob("*.safetensors"))):
        if path.exists() and digest_file(path) == digest:
            return path
    raise PipelineError(
        f"the LoRA that drew it (SHA-256 {digest[:16]}) is in no run of {work.subject.name} any more; train it again with the settings of then"
    )


def score(work: Work) -> Outcome:
    """`validation_grids` → `checkpoint_scores`. The face embedder is the one that `crop` knew the subject by."""
    from lora_pipeline.models.faces import face_reader, identity

    grids, checkpoints, folder, settings = work.made("grids"), work.made("fit"), work.folder("scores"), work.settings
    held_out = _held_out(work)
    subject, trained = _whose_faces(work, held_out)
    embedders, judges = _scorers(settings)
    read = face_reader(settings.crop)
    outcome = grading.score(
        grids,
        checkpoints,
        folder,
        settings.grade,
        subject,
        read,
        work.subject.kind,
        work.progress,
        embedder=identity(settings.crop),
        pictures=work.made("conceal"),
        others=_of_others(work),
        held_out=held_out,
        trained=trained,
        held_out_losses=fitting.held_out_losses(checkpoints),
        embedders=embedders,
        judges=judges,
    )
    grading.make_chart(outcome.manifest, folder)
    grading.make_grid(grids, checkpoints, folder, outcome.manifest)
    _make_page(work, grids, outcome.manifest)
    person = work.subject.kind == "person"
    measure = _by_faces(work, subject, read) if person else _by_embedder(work, embedders, held_out)
    _sweep_strengths(work, grids, outcome.manifest, measure)
    return outcome


def _sweep_strengths(work: Work, grids: Manifest, scores: Manifest, measure: "_Measure | None") -> None:
    """Where the chosen epoch was drawn at several strengths: which of them to recommend. Nothing is, where no measure says how near a picture comes."""
    chosen = [score.epoch for score in map(Score.of, scores.kept) if score.chosen]
    if measure is None or not chosen:
        return
    grading.sweep(
        grids,
        chosen[0],
        work.folder("scores"),
        sorted({str(row.data["prompt"]) for row in _of_the_subject(work, grids).kept}),
        measure.distance,
        measure.by_what,
        progress=work.progress,
        by=measure.by,
    )


@dataclass(frozen=True)
class _Measure:
    """How near a picture comes to the subject, as the epochs are judged.

    Args:
        distance: of a picture.
        by_what: digests or names of all that it depends on.
        by: the embedder's name; empty for faces.
    """

    distance: "Callable[[Image], float | None]"
    by_what: list[str]
    by: str = ""


def _by_faces(work: Work, subject: Sequence[Sequence[float]], read: grading.ReadFaces) -> _Measure:
    """Distance of the face to the mean of the subject's.

    Args:
        subject: descriptors that the epochs are measured by.
        read: whose face is in a picture.
    """
    import numpy as np

    from lora_pipeline.models.faces import identity

    mean = np.asarray(subject, dtype=np.float64).mean(0)

    def distance(picture: "Image") -> float | None:
        found = read(picture)
        (apart,) = grading.identity_distances([None if found is None else found.descriptor], [tuple(mean.tolist())])
        return apart

    return _Measure(distance, [identity(work.settings.crop), manifest.key_of(mean.tolist())])


def _by_embedder(work: Work, embedders: Mapping[str, grading.Embedder], held_out: set[str]) -> _Measure | None:
    """1 - mean cosine to the training pictures (held-out ones, if there are any) by the first embedder; None without one."""
    if not embedders:
        return None
    by, embedder = next(iter(embedders.items()))
    of = {row.id: str(row.data["photo"]) for row in work.made("conceal").kept}
    aside = [id for id, photo in of.items() if photo in held_out]
    vectors = grading.embedded(work.folder("scores"), by, aside or list(of))

    def distance(picture: "Image") -> float | None:
        (cosine,) = grading.cosines([embedder.embed(picture)], vectors)
        return None if cosine is None else 1 - cosine

    return _Measure(distance, [embedder.identity, manifest.key_of([list(one) for one in vectors])], by)


def _held_out(work: Work) -> set[str]:
    """Photos that are kept aside for the held-out loss."""
    learnt = fitting.without_held_out(work.made("encode"), work.settings.fit)
    return {str(row.data["photo"]) for row in fitting.held_out(learnt).kept}


def _whose_faces(work: Work, held_out: set[str]) -> tuple[list[tuple[float, ...]], list[tuple[float, ...]]]:
    """Descriptors that epochs are measured by, and the subject's others: those of held-out photos and of the rest, if some are held out, else all and none."""
    folder = work.folder("crop")
    aside = cropping.subject_descriptors(folder, held_out) if held_out else []
    rest = cropping.subject_descriptors(folder, set(cropping.decided_faces(folder)) - held_out)
    return (aside, rest) if aside else (rest, [])


def _scorers(settings: Settings) -> tuple[dict[str, grading.Embedder], list[grading.Judge]]:
    """Embedders that the settings name, the surest of things first; judges of prompts: CLIP if it is named, and in the drawn world the reader
    that was calibrated on it.
    """
    from lora_pipeline.models.clip import Clip
    from lora_pipeline.models.dino import Dino

    embedders: dict[str, grading.Embedder] = {}
    judges: list[grading.Judge] = []
    if settings.grade.dino_model:
        embedders["DINOv2"] = Dino.open(settings.grade.dino_model)
    if settings.grade.clip_model:
        clip = Clip.open(settings.grade.clip_model)
        embedders["CLIP-I"] = clip
        judges.append(clip)
    if settings.base.model == "bundled":
        from lora_pipeline.demo.attributes import Attributes

        judges.append(Attributes())
    return embedders, judges


def publish(work: Work) -> Outcome:
    """The chosen epoch → `released_lora`."""
    _agreed(work)
    subject = work.subject
    photos = {row.id: Photo.of(row).digest for row in work.made("collect").kept}
    training_set = fitting.without_held_out(work.made("encode"), work.settings.fit)
    used = {str(row.data["photo"]) for row in training_set.kept if not row.data.get("regularisation")}
    beside = sum(bool(row.data.get("regularisation")) for row in training_set.kept)
    aside = len(fitting.held_out(training_set).kept)
    strength = grading.recommended(manifest.read(work.folder("scores"), grading.STRENGTHS))
    card = publishing.CardFacts(
        name=subject.name,
        kind=subject.kind,
        trigger=subject.trigger,
        class_word=subject.class_word,
        consent=None
        if subject.consent is None
        else subject.consent.model_dump(mode="json", exclude_defaults=True, exclude={"document"}),
        settings=_as_used(work).model_dump(mode="json", exclude={"forecast"}),  # what the person pays is no part of it
        photos=tuple(sorted((photo, photos[photo]) for photo in used)),
        counts={step.noun: len(work.made(step.folder).kept) for step in STEPS if step.verb != "publish"}
        | ({"pictures kept aside": aside} if aside else {})
        | ({"regularisation pictures": beside} if beside else {}),
        examples=tuple(Example.of(row) for row in training_set.kept),
        strength="" if strength is None else strength.reason,
        strength_value=None if strength is None else strength.strength,
        research=_research(work),
        hidden=_hidden(work, {row.id for row in training_set.kept}),
        may_show=not consent.objection(subject, "share_pictures"),
        recalled=_recalled(work),
    )
    return publishing.publish(
        work.made("scores"),
        work.made("fit"),
        work.folder("publish"),
        work.settings.publish,
        work.settings.base,
        card,
        work.progress,
        _of_the_subject(work, work.made("grids")),
    )


def _as_used(work: Work) -> Settings:
    """The settings as they were really used: what training had to save, and the negative prompt that a list of prompts brings along."""
    settings = as_trained(work).settings
    asked = grading.prompts_of(settings.grade, work.subject.kind, work.store.subject(work.subject.name))
    grade = settings.grade.model_copy(update={"negative_prompt": asked.negative})
    return settings.model_copy(update={"grade": grade})


def _research(work: Work) -> tuple[str, ...]:
    """The terms of models for non-commercial research that had a part in what is released; in a style nothing is looked for.

    A detector says whose face is trained on and whose is hidden, and which epoch is the nearest. Pitch is only told, unless fewer pictures are wanted
    than there are and the coverage plan asks for it.
    """
    from lora_pipeline.models.faces import terms

    settings, kind = work.settings.crop, work.subject.kind
    if kind == "style":
        return ()
    fewer = kind == "person" and (settings.best or settings.framing_shares)
    by_pitch = fewer and (settings.coverage.get("up") or settings.coverage.get("down"))
    return tuple(terms(settings if by_pitch else settings.model_copy(update={"head_pose": False})))


def _of_the_subject(work: Work, grids: Manifest) -> Manifest:
    """The validation pictures, without those of others of the class."""
    others = _of_others(work)
    return replace(grids, rows=tuple(row for row in grids.rows if row.data.get("prompt") not in others))


def _hidden(work: Work, trained_on: Collection[str]) -> publishing.Hidden | None:
    """Other people's faces on the pictures that are trained on; None for a style, in which none is looked for."""
    if work.subject.kind == "style":
        return None
    hidden = [int(str(row.data.get("hidden", 0))) for row in work.made("conceal").kept if row.id in trained_on]
    return publishing.Hidden(sum(hidden), sum(map(bool, hidden)), work.settings.conceal.method)


def _recalled(work: Work) -> str:
    """Why the checkpoints of the run that stands now must not be used any more; empty if they may."""
    made = work.made("fit")
    told = recall.recalled(made.path(made.kept[-1], "lora").parent) if made.kept else None
    return "" if told is None else told.in_words()


def recalled_runs(work: Work) -> list[tuple[str, str]]:
    """Folders of runs and of the release in which recalled files lie, and why these are."""
    return recall.under(work.folder("fit").parent)


def place(work: Work, tree: Path) -> list[Path]:
    """Lay the released LoRA into the folder of ComfyUI, AUTOMATIC1111 or Forge, where the same person uses it; returns what lies there.

    Raises:
        SubjectError: the consent does not hold any more.
        PipelineError: nothing is released, it is recalled, or the folder is none of theirs.
    """
    consent.refuse(work.subject, "training")
    return publishing.place(_released(work), work.folder("publish"), tree, datetime.date.today())


def push(work: Work, repo: str, public: bool) -> str:
    """Put the released LoRA on the Hugging Face hub, and return its address there.

    Raises:
        SubjectError: the consent does not cover giving the LoRA to others (the hub is one), or showing the pictures on its card.
        PipelineError: nothing is released, it is recalled, or the hub refuses it.
    """
    consent.refuse(work.subject, "share_file")
    row = _released(work)
    if "preview" in row.files:  # it was allowed when the card was written
        consent.refuse(work.subject, "share_pictures")
    return publishing.push(row, work.folder("publish"), repo, public, datetime.date.today())


def _released(work: Work) -> Row:
    made = work.made("publish")
    if not made.kept:
        raise PipelineError(f"nothing of {work.subject.name} is released yet: lora-pipeline run {work.subject.name}")
    row, told = made.kept[0], recall.recalled(made.folder)
    if told is not None and told.holds(file.digest for file in row.files.values()):
        raise PipelineError(
            f"the released LoRA is {told.in_words()}; run again, which trains without them: lora-pipeline run {work.subject.name}"
        )
    return row


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
    """Run one step, leave beside its manifest the settings that were really used, for `status` and for people, and write down what was made of what.

    Args:
        run: in place of `step.run`, where the caller binds more arguments (training's reports).
    """
    began = time.time()
    outcome = (run or step.run)(work)
    write_text(work.folder(step.folder) / USED, json.dumps(used_settings(step, work), indent=1, sort_keys=True))
    lineage.record(work.store, work.subject.name, began)
    return outcome


def make_training_set(work: Work) -> None:
    """Run the steps up to the training set and with it, so that training can be forecast. Raises SubjectError if no consent covers it."""
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
