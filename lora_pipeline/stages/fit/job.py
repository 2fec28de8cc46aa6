"""A training run on paper: everything that the process that trains must know, and what lies in the run's folder."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from lora_pipeline.manifest import Manifest, read
from lora_pipeline.settings import BaseSettings, FitSettings
from lora_pipeline.stages.fit.held_out import held_out
from lora_pipeline.stages.fit.reports import EpochReport, StepReport, of_line
from lora_pipeline.store import digest_file, write_text


@dataclass(frozen=True)
class Job:
    """One run.

    Args:
        key: of the run: hash of all that its result depends on.
        run: the run's folder.
        training_set: folder under which the training set's files lie.
        trained_on: digest of the training set's manifest, less what was kept aside; its copy is `trained_on.parquet` in the run's folder.
        settings: of the training.
        base: what is trained on.
        prompt: of the sample pictures; empty is none.
        guidance_scale: of the sample pictures.
    """

    key: str
    run: Path
    training_set: Path
    trained_on: str
    settings: FitSettings
    base: BaseSettings
    prompt: str
    guidance_scale: float = 5.0

    def write(self) -> Path:
        """Write `job.json` into the run's folder and give its path."""
        fields = {
            "key": self.key,
            "training_set": str(self.training_set.resolve()),
            "trained_on": self.trained_on,
            "settings": self.settings.model_dump(mode="json"),
            "base": self.base.model_dump(mode="json"),
            "prompt": self.prompt,
            "guidance_scale": self.guidance_scale,
        }
        write_text(self.run / "job.json", json.dumps(fields, indent=2) + "\n")
        return self.run / "job.json"

    @classmethod
    def read(cls, file: Path) -> Self:
        """The job that a `job.json` holds; its run is the folder it lies in."""
        fields = json.loads(file.read_text(encoding="utf-8"))
        return cls(
            key=fields["key"],
            run=file.parent,
            training_set=Path(fields["training_set"]),
            trained_on=fields["trained_on"],
            settings=FitSettings.model_validate(fields["settings"]),
            base=BaseSettings.model_validate(fields["base"]),
            prompt=fields["prompt"],
            guidance_scale=fields.get("guidance_scale", cls.guidance_scale),
        )

    @property
    def examples(self) -> Manifest:
        """The training set as it was when the run was begun; what was kept aside is not kept in it."""
        return Manifest(self.training_set, read(self.run, "trained_on").rows)

    @property
    def held_out(self) -> Manifest:
        """The pictures that were kept aside when the run was begun."""
        return held_out(self.examples)

    @property
    def state(self) -> Path:
        """File from which an interrupted run continues; gone when the run is finished."""
        return self.run / "state" / "state.pt"

    @property
    def out_of_memory(self) -> Path:
        """What was said when the run ran out of memory and another, with less, took its place. Without it, it is tried again."""
        return self.run / "out_of_memory.txt"

    @property
    def steps_file(self) -> Path:
        """A line a step."""
        return self.run / "steps.jsonl"

    @property
    def epochs_file(self) -> Path:
        """A line an epoch."""
        return self.run / "epochs.jsonl"


def steps_in(file: Path) -> list[StepReport]:
    """The steps that a `steps.jsonl` tells of."""
    return [report for report in _reports_in(file) if isinstance(report, StepReport)]


def epochs_told_in(file: Path) -> list[EpochReport]:
    """The epochs that an `epochs.jsonl` tells of, whatever became of their files."""
    return [report for report in _reports_in(file) if isinstance(report, EpochReport)]


def epochs_in(file: Path) -> list[EpochReport]:
    """The epochs that an `epochs.jsonl` tells of and whose files are all there, unchanged, up to the first that is not."""
    whole: list[EpochReport] = []
    for report in _reports_in(file):
        if not isinstance(report, EpochReport) or not _stands(report, file.parent):
            break
        whole.append(report)
    return whole


def held_out_losses(checkpoints: Manifest) -> dict[int, tuple[float, float]]:
    """By epoch, the loss on the photos that were kept aside and that of the base model; empty if none were, or the run's reports have gone.

    Args:
        checkpoints: what `fit` gave.
    """
    runs = {checkpoints.path(row, "lora").parent for row in checkpoints.kept}
    reports = [report for run in sorted(runs) for report in epochs_told_in(run / "epochs.jsonl")]
    return {
        report.epoch: (report.held_out_loss, report.base_held_out_loss)
        for report in reports
        if report.held_out_loss is not None and report.base_held_out_loss is not None
    }


def _reports_in(file: Path) -> Iterator[StepReport | EpochReport]:
    if not file.exists():
        return
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            yield of_line(line)
        except (ValueError, TypeError, KeyError):
            return  # the line that was being written when the run was killed


def _stands(report: EpochReport, run: Path) -> bool:
    try:
        return all(digest_file(run / path) == digest for path, digest in report.digests.items())
    except OSError:
        return False
