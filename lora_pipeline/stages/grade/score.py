"""Scores: how near each epoch's pictures come to the subject, and which epoch to release."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lora_pipeline.errors import PipelineError
from lora_pipeline.manifest import Item, Made, Manifest, Outcome, refresh
from lora_pipeline.pictures import open_upright
from lora_pipeline.progress import Progress, silent
from lora_pipeline.records import Checkpoint, Kind, Row, Score
from lora_pipeline.settings import GradeSettings
from lora_pipeline.stages.grade.choose import Verdict, choose
from lora_pipeline.stages.grade.looks import LOOK_VERSION, look, look_distance

if TYPE_CHECKING:
    from PIL.Image import Image

CODE_VERSION = "1"
EMBEDDED = "embedded"
LOOKS = "looks"

Descriptor = Sequence[float]
Embed = Callable[["Image"], "Descriptor | None"]
"""Whose face is in a picture: a descriptor, or None where no face is found. Near descriptors (Euclidean) are one person."""


def score(
    grids: Manifest,
    checkpoints: Manifest,
    folder: Path,
    settings: GradeSettings,
    subject: Sequence[Descriptor],
    embed: Embed,
    kind: Kind,
    progress: Progress = silent,
    *,
    embedder: str = "",
    pictures: Manifest | None = None,
) -> Outcome:
    """Judge every epoch, and choose one; the base model is judged beside them.

    For a person, an epoch's identity distance is the median, over its pictures with a face, of the distance of the face's
    descriptor to the **mean** of the subject's descriptors. The mean separates better than the median of the distances to all
    of them: on one man in 8 photos and 5 other faces, dlib's descriptors, the subject's own farthest photo and the nearest
    other face lie 0.47 apart (0.33 to 0.80) by the mean, 0.41 apart (0.42 to 0.83) by the median.

    For other kinds there is no such model: an epoch's picture distance is the median, over its pictures, of the median
    distance of its `look` (colours and edges: weak, see there) to the training pictures'.

    How an epoch is chosen stands in `choose`.

    Args:
        grids: as `draw_grids` made it.
        checkpoints: those that were drawn; an epoch without a checkpoint is not judged.
        folder: the stage's folder; ids are the epoch in four digits ("0000" is the base model). Data are
            those of `Score`, and `learned`: whether the epoch is nearer to the subject than the base model, or None where
            that cannot be said. What was seen in each picture is remembered in the tables `embedded` and `looks`.
        settings: only `overfit_tolerance` is read.
        subject: descriptors of the subject's face in the training photos. Unused for kinds without faces.
        embed: see `Embed`. Unused for kinds without faces.
        kind: only `person` is judged by faces.
        progress: told after each picture.
        embedder: name and version of what `embed` is; another one embeds all pictures anew.
        pictures: the training pictures (file role `picture`), for kinds without faces. Without them the last epoch is chosen.

    Raises:
        PipelineError: a person without descriptors, or no pictures.
    """
    epochs = [0, *sorted(Checkpoint.of(row).epoch for row in checkpoints.kept)]
    rows = [
        row for row in grids.rows if _epoch(row) in epochs and "@" not in row.id
    ]  # at strength 1, as it was trained
    if not rows or len(epochs) == 1:
        raise PipelineError(
            "there is no validation picture of any epoch to judge; draw them first (the asset validation_grids)"
        )
    if kind == "person":
        if not subject:
            raise PipelineError(
                "the subject's face is not known, so no epoch can be judged: no kept photo has a face that is the subject's; see the asset face_crops"
            )
        seen = _by_faces(grids, rows, folder, np.asarray(subject, dtype=np.float64).mean(0), embed, embedder, progress)
    else:
        seen = _by_looks(grids, rows, folder, pictures, progress)
    judged: list[Score] = []
    for epoch in epochs:
        own = [seen[row.id] for row in rows if _epoch(row) == epoch]
        near = [distance for distance in own if distance is not None]
        median = round(float(np.median(near)), 4) if near else None
        share = round(len(near) / len(own), 4) if own else 0.0
        judged.append(Score(epoch, median, share) if kind == "person" else Score(epoch, None, 0.0, median))
    verdicts = choose(judged, settings.overfit_tolerance, kind == "person")
    items = [
        Item(f"{verdict.score.epoch:04d}", [verdict.score.data(), verdict.learned], verdict) for verdict in verdicts
    ]
    return refresh(
        folder, items, _written, settings=None, code_version=CODE_VERSION, what="score the epochs", progress=silent
    )


def _written(verdict: Verdict, _: Path) -> Made:
    return Made({**verdict.score.data(), "learned": verdict.learned})


def _epoch(row: Row) -> int:
    return int(row.id.split("/")[0].removeprefix("e"))  # a failed row has no data


def _by_faces(
    grids: Manifest,
    rows: Sequence[Row],
    folder: Path,
    mean: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]",
    embed: Embed,
    embedder: str,
    progress: Progress,
) -> dict[str, float | None]:
    """Distance of each picture's face to the subject's, by id; None where there is no picture or no face."""

    def make(path: Path, _: Path) -> Made:
        descriptor = embed(open_upright(path))
        return Made({"descriptor": None if descriptor is None else [float(value) for value in descriptor]})

    items = [
        Item(row.id, [row.files["picture"].digest, embedder], grids.path(row)) for row in rows if row.state == "kept"
    ]
    told = refresh(
        folder,
        items,
        make,
        settings=None,
        code_version=CODE_VERSION,
        name=EMBEDDED,
        what="look for faces in the pictures",
        progress=progress,
    )
    found: dict[str, float | None] = dict.fromkeys(row.id for row in rows)
    for row in told.manifest.kept:
        descriptor = row.data["descriptor"]
        if isinstance(descriptor, list):
            found[row.id] = float(np.linalg.norm(np.asarray(descriptor, dtype=np.float64) - mean))
    return found


def _by_looks(
    grids: Manifest, rows: Sequence[Row], folder: Path, pictures: Manifest | None, progress: Progress
) -> dict[str, float | None]:
    """Distance of each picture's look to the training pictures', by id; None where there is no picture, or nothing to compare with."""

    def make(path: Path, _: Path) -> Made:
        return Made({"look": list(look(open_upright(path)))})

    drawn = {f"drawn/{row.id}": (row.files["picture"].digest, grids.path(row)) for row in rows if row.state == "kept"}
    trained = (
        {f"trained/{row.id}": (row.files["picture"].digest, pictures.path(row)) for row in pictures.kept}
        if pictures
        else {}
    )
    items = [Item(id, [digest], path) for id, (digest, path) in {**drawn, **trained}.items()]
    told = refresh(
        folder,
        items,
        make,
        settings=None,
        code_version=LOOK_VERSION,
        name=LOOKS,
        what="measure the pictures",
        progress=progress,
    )
    looks = {row.id: _numbers(row) for row in told.manifest.kept}
    known = [looks[id] for id in trained if id in looks]
    found: dict[str, float | None] = dict.fromkeys(row.id for row in rows)
    for row in rows:
        seen = looks.get(f"drawn/{row.id}")
        if seen is not None and known:
            found[row.id] = float(np.median([look_distance(seen, one) for one in known]))
    return found


def _numbers(row: Row) -> tuple[float, ...]:
    values = row.data["look"]
    return tuple(float(value) for value in values) if isinstance(values, list) else ()
