"""Scores: what speaks for and against each epoch's pictures, and which epoch to release."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lora_pipeline.errors import PipelineError
from lora_pipeline.manifest import Item, Made, Manifest, Outcome, refresh
from lora_pipeline.progress import Progress, silent
from lora_pipeline.records import Checkpoint, Kind, Row, Score
from lora_pipeline.settings import GradeSettings
from lora_pipeline.stages.grade.advice import advice
from lora_pipeline.stages.grade.choose import Verdict, choose
from lora_pipeline.stages.grade.damage import damage
from lora_pipeline.stages.grade.drift import drift
from lora_pipeline.stages.grade.freedom import freedom
from lora_pipeline.stages.grade.likeness import Yardstick, likeness, with_the_lost
from lora_pipeline.stages.grade.memorising import memorising, nearest_among
from lora_pipeline.stages.grade.prompt import prompt_followed
from lora_pipeline.stages.grade.see import Embedder, Eyes, Judge, ReadFaces, see
from lora_pipeline.stages.grade.seen import Seen, Vector
from lora_pipeline.stages.grade.sure import doubt
from lora_pipeline.stages.grade.veto import vetoes

CODE_VERSION = "1"


def score(
    grids: Manifest,
    checkpoints: Manifest,
    folder: Path,
    settings: GradeSettings,
    subject: Sequence[Vector],
    embed: ReadFaces,
    kind: Kind,
    progress: Progress = silent,
    *,
    embedder: str = "",
    pictures: Manifest | None = None,
    others: Collection[str] = (),
    held_out: Collection[str] = (),
    trained: Sequence[Vector] = (),
    held_out_losses: Mapping[int, tuple[float, float]] | None = None,
    embedders: Mapping[str, Embedder] | None = None,
    judges: Sequence[Judge] = (),
) -> Outcome:
    """Judge every epoch, and choose one; the base model is judged beside them.

    Six questions are asked of the pictures, a file each: `likeness`, `prompt`, `memorising`, `freedom`, `drift`, `damage`. What says no is in
    `veto`, how an epoch is chosen in `choose`, what to do next in `advice`, how sure that is in `sure`. Pictures at another strength than 1 are not judged.

    The distance that is chosen by is, for a person, that of the faces' descriptors to the mean of the subject's; for other kinds that of the
    first embedder (1 - mean cosine to the training pictures), or without one that of `look` (colours and edges: weak, see there).

    Args:
        grids: as `draw_grids` made it.
        checkpoints: those that were drawn; an epoch without a checkpoint is not judged.
        folder: the stage's folder; ids are the epoch in four digits ("0000" is the base model). Data are
            those of `Score`, and `learned`: whether the epoch is nearer to the subject than the base model, or None where
            that cannot be said. What was seen in each picture is remembered in the tables of `see`.
        settings: the tolerance, the vetoes' limits and a person's pick are read.
        subject: descriptors of the subject's face: in held-out photos where there are some, else in all. Unused for kinds without faces.
        embed: see `ReadFaces`. Unused for kinds without faces.
        kind: only `person` is judged by faces.
        progress: told after each picture.
        embedder: name and version of what `embed` is; another one looks at all pictures anew.
        pictures: the training pictures (file role `picture`). Without them nothing is said of copies, and of kinds without faces the last epoch is chosen.
        others: prompts without the trigger, as they were drawn: they are judged for drift alone.
        held_out: ids of the photos that trained nothing.
        trained: descriptors of the subject's face in the other photos, if `subject` is of held-out ones.
        held_out_losses: by epoch, the loss on held-out photos and that of the base model.
        embedders: by the name to show, the first is what things are judged by.
        judges: of how pictures follow their prompts.

    Raises:
        PipelineError: a person without descriptors, no pictures, or a pick that is no epoch.
        ModelError: an embedder's or a judge's weights cannot be opened.
    """
    epochs = [0, *sorted(Checkpoint.of(row).epoch for row in checkpoints.kept)]
    # the id of a picture at another strength than 1 ends in it: @0.5
    rows = [row for row in grids.rows if _epoch(row) in epochs and "@" not in row.id]
    if not rows or len(epochs) == 1:
        raise PipelineError(
            "there is no validation picture of any epoch to judge; draw them first (the asset validation_grids)"
        )
    person, models = kind == "person", embedders or {}
    if person and not subject:
        raise PipelineError(
            "the subject's face is not known, so no epoch can be judged: no kept photo has a face that is the subject's; see the asset face_crops"
        )
    seen, photos = see(
        grids, rows, pictures, folder, Eyes(embed if person else None, embedder, models, judges), progress
    )
    known = [one for one in photos if one.photo not in held_out]
    aside = [one for one in photos if one.photo in held_out] or known
    first, among = next(iter(models), ""), nearest_among(known)
    yardstick = Yardstick("face", subject, trained) if person else _of_things(first, aside, known)
    drawn = {epoch: [row for row in rows if _epoch(row) == epoch] for epoch in epochs}
    without = _columns_of(rows, others)
    own = {epoch: [seen[row.id] for row in drawn[epoch] if _column(row) not in without] for epoch in epochs}
    beside = {epoch: [seen[row.id] for row in drawn[epoch] if _column(row) in without] for epoch in epochs}

    def measured(epoch: int) -> Score:
        mine, base = own[epoch], own[0]
        losses = (held_out_losses or {}).get(epoch)
        measures = (
            *likeness(mine, base, yardstick, aside, list(models)),
            *(prompt_followed(mine, base, judge.name) for judge in judges),
            *memorising(mine, base, known, first, among),
            *freedom(mine, base, person, first),
            *drift(beside[epoch], beside[0], mine, yardstick),
            *damage(mine, base, losses),
        )
        against = vetoes(measures, settings) if epoch else ()
        distance = measures[0].value
        share = round(sum(one.descriptor is not None for one in mine) / len(mine), 4) if person and mine else 0.0
        told = Score(epoch, distance, share) if person else Score(epoch, None, 0.0, distance)
        return replace(told, measures=measures, vetoes=against)

    judged = [measured(epoch) for epoch in epochs]
    verdicts = choose(judged, settings.overfit_tolerance, person, first, settings.pick)
    contenders = [one.score.epoch for one in verdicts if one.learned and not one.score.vetoes]
    control = yardstick.distances(own[0])
    apart = {epoch: with_the_lost(own[epoch], yardstick.distances(own[epoch]), own[0], control) for epoch in contenders}
    words = "; ".join(filter(None, (advice(judged), doubt(apart))))
    verdicts = [replace(one, score=replace(one.score, advice=words)) if one.score.chosen else one for one in verdicts]
    items = [
        Item(f"{verdict.score.epoch:04d}", [verdict.score.data(), verdict.learned], verdict) for verdict in verdicts
    ]
    return refresh(
        folder, items, _written, settings=None, code_version=CODE_VERSION, what="score the epochs", progress=silent
    )


def _of_things(embedder: str, photos: Sequence[Seen], trained: Sequence[Seen]) -> Yardstick:
    by = Yardstick(embedder or "look", ())
    near, rest = ([what for one in some if (what := by.of(one)) is not None] for some in (photos, trained))
    return replace(by, subject=near, trained=rest if photos is not trained else ())


def _written(verdict: Verdict, _: Path) -> Made:
    return Made({**verdict.score.data(), "learned": verdict.learned})


def _epoch(row: Row) -> int:
    return int(row.id.split("/")[0].removeprefix("e"))  # a failed row has no data


def _column(row: Row) -> str:
    return row.id.split("/")[1]


def _columns_of(rows: Sequence[Row], prompts: Collection[str]) -> set[str]:
    """The columns of the grid with one of these prompts; a picture that failed has no prompt of its own, but stands in its column."""
    return {_column(row) for row in rows if row.data.get("prompt") in prompts}
