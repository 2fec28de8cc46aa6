"""What the stages left of a subject, and the training runs that are kept: their `trained_on.parquet` is the training set as it was."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from lora_pipeline import subject as subjects
from lora_pipeline.errors import SubjectError
from lora_pipeline.manifest import Manifest, read
from lora_pipeline.records import Checkpoint, Example, Row
from lora_pipeline.store import Store

STAGES = ("collect", "curate", "crop", "conceal", "describe", "encode")


@dataclass(frozen=True)
class KeptCheckpoint:
    epoch: int
    path: Path
    digest: str


@dataclass(frozen=True)
class KeptRun:
    key: str
    folder: Path
    trained_on: str
    examples: tuple[Row, ...]
    checkpoints: tuple[KeptCheckpoint, ...]
    samples: tuple[tuple[Path, int], ...]  # sample pictures and their epochs
    current: bool
    aside: frozenset[str] = frozenset()  # photos that were in its training set and trained nothing

    def epoch(self, epoch: int) -> KeptCheckpoint | None:
        return next((one for one in self.checkpoints if one.epoch == epoch), None)


@dataclass(frozen=True)
class Left:
    """What the stages left of one subject."""

    subject: str
    stages: dict[str, Manifest]
    grids: Manifest
    released: Manifest
    runs: tuple[KeptRun, ...]
    scores: Manifest

    @cached_property
    def _rows(self) -> dict[str, dict[str, Row]]:
        return {stage: {row.id: row for row in manifest.rows} for stage, manifest in self.stages.items()}

    def row(self, stage: str, id: str) -> Row | None:
        return self._rows[stage].get(id)

    @property
    def photos(self) -> list[str]:
        """Ids of all photos that there are, or that a run that is kept was trained on."""
        trained = {Example.of(row).photo for run in self.runs for row in run.examples}
        return sorted({row.id for row in self.stages["collect"].rows} | trained)

    @property
    def current(self) -> KeptRun | None:
        return next((run for run in self.runs if run.current), None)

    def verdict(self, one: KeptCheckpoint) -> str:
        """What was said of a checkpoint; empty if its pictures are not those that were judged."""
        drawn = any(row.data.get("checkpoint") == one.digest for row in self.grids.kept)
        said = next((row for row in self.scores.rows if row.id == f"{one.epoch:04d}"), None)
        return str(said.data.get("reason", "")) if drawn and said is not None else ""

    def by_digest(self, digest: str) -> tuple[KeptRun, KeptCheckpoint] | None:
        found = [(run, one) for run in self.runs for one in run.checkpoints if one.digest == digest]
        return min(found, key=lambda pair: not pair[0].current, default=None)


def read_left(store: Store, subject: str) -> Left:
    if not store.work(subject, "collect").parent.is_dir():
        if subject in subjects.names(store):
            raise SubjectError(f"nothing was made of '{subject}' yet; run it first")
        raise subjects.unknown(store, subject)
    stages = {stage: read(store.work(subject, stage)) for stage in STAGES}
    grids, released, scores = (read(store.work(subject, stage)) for stage in ("grids", "publish", "scores"))
    return Left(subject, stages, grids, released, tuple(kept_runs(read(store.work(subject, "fit")))), scores)


def kept_runs(fit: Manifest) -> Iterable[KeptRun]:
    """All runs that are kept, the one that stands now first."""
    now = {Checkpoint.of(row).run: row for row in fit.kept}
    runs: list[KeptRun] = []
    for file in sorted(fit.folder.glob("runs/*/trained_on.parquet")):
        folder = file.parent
        job = _json(folder / "job.json")
        key = str(job.get("key") or next((key for key in now if key.startswith(folder.name)), folder.name))
        checkpoints, samples = _epochs(folder)
        standing = [
            KeptCheckpoint(Checkpoint.of(row).epoch, fit.path(row, "lora"), row.files["lora"].digest)
            for row in fit.kept
            if Checkpoint.of(row).run == key
        ]
        trained_on = Checkpoint.of(now[key]).trained_on if key in now else str(job.get("trained_on", ""))
        examples = Manifest(folder, read(folder, "trained_on").rows)
        aside = frozenset(Example.of(row).photo for row in examples.rows if row.data.get("held_out"))
        runs.append(
            KeptRun(
                key,
                folder,
                trained_on or examples.digest,
                examples.kept,
                tuple(standing or checkpoints),
                tuple(samples),
                key in now,
                aside,
            )
        )
    return sorted(runs, key=lambda run: not run.current)


def _epochs(run: Path) -> tuple[list[KeptCheckpoint], list[tuple[Path, int]]]:
    """What a run's `epochs.jsonl` tells of, as far as it is still there."""
    checkpoints: list[KeptCheckpoint] = []
    samples: list[tuple[Path, int]] = []
    file = run / "epochs.jsonl"
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if file.exists() else ():
        try:
            told: dict[str, Any] = json.loads(line)
            epoch, lora, sample = int(told["epoch"]), str(told["file"]), str(told.get("sample") or "")
            digest = str(told["digests"][lora])
        except (ValueError, KeyError, TypeError):
            break  # the line that was being written when the run was killed
        if (run / lora).exists():
            checkpoints.append(KeptCheckpoint(epoch, run / lora, digest))
        if sample:
            samples.append((run / sample, epoch))
    return checkpoints, samples


def _json(file: Path) -> dict[str, Any]:
    try:
        return cast(dict[str, Any], json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}
