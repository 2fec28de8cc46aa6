"""What the terminal prints at the end: tables of numbers, the choice, where things lie."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_pipeline import consent, people, trigger
from lora_pipeline.flow import STEPS, Standing, Work, recalled_runs, unsure
from lora_pipeline.flow import faces as faces_of
from lora_pipeline.manifest import Report
from lora_pipeline.models.faces import terms
from lora_pipeline.recipes import recipe
from lora_pipeline.records import Score
from lora_pipeline.settings import Section, Settings
from lora_pipeline.stages.crop import Coverage
from lora_pipeline.stages.fit import Compared, Forecast, compare, objections
from lora_pipeline.stages.grade import MEDIAN


def summary(work: Work, reports: Mapping[str, Report], faults: Sequence[str]) -> str:
    """A run in words: each stage's numbers and seconds, identity distances, the chosen epoch and why, the files."""
    rows = [("stage", "computed", "reused", "dropped", "failed", "seconds")]
    for step in STEPS:
        if (report := reports.get(step.noun)) is not None:
            rows.append(
                (
                    step.noun,
                    str(report.computed),
                    str(report.reused),
                    str(report.dropped),
                    str(report.failed),
                    f"{report.seconds:.1f}",
                )
            )
        else:
            rows.append((step.noun, "did not run", "", "", "", ""))
    lines = [f"{work.subject.name}", *_columns(rows)]
    lines += terms(work.settings.crop)
    if faults:
        lines += ["", *faults]
    if faults and STEPS[-1].noun not in reports:  # a check that only warns has stopped nothing
        return "\n".join(lines)
    return "\n".join([*lines, "", *_result(work)])


def _result(work: Work) -> list[str]:
    scores = [Score.of(row) for row in work.made("scores").kept]
    base = next((score for score in scores if score.epoch == 0), None)
    chosen = next((score for score in scores if score.chosen), None)
    lines: list[str] = []
    if base is not None and chosen is not None:
        if base.identity_distance is not None and chosen.identity_distance is not None:
            lines.append(
                f"identity distance to the subject: base model {base.identity_distance:.3f}, chosen LoRA {chosen.identity_distance:.3f}{_medians(base, chosen)}"
            )
        lines += [f"chosen: epoch {chosen.epoch}", f"why: {chosen.reason}"]
        lines += [f"runner-up: epoch {score.epoch}" for score in scores if score.runner_up]
        lines += [f"advice: {chosen.advice}"] if chosen.advice else []
    checkpoints, released = work.made("fit"), work.made("publish")
    lines.append(f"grid: {work.folder('scores') / 'grid.png'}")
    if checkpoints.kept:
        run = checkpoints.path(checkpoints.kept[-1], "lora").parent
        lines.append(f"page of all pictures: {work.folder('grids') / 'index.html'}")
        lines.append(f"loss curve: {run / 'loss.png'}")
        lines += _as_forecast(run)
    if released.kept:
        lines.append(f"LoRA file: {released.path(released.kept[0], 'lora')}")
    return lines


def _medians(base: Score, chosen: Score) -> str:
    """The same in the median of the pictures, where it was measured."""
    medians = [one.value for score in (base, chosen) for one in score.measures if one.name == MEDIAN]
    known = [f"{median:.3f}" for median in medians if median is not None]
    return f" (in the median {known[0]} and {known[1]})" if len(known) == 2 else ""


def _as_forecast(run: Path) -> list[str]:
    """A line of what a finished run was forecast to take and took; none if it was not forecast."""
    told = [
        f"{what} {forecast}, came {happened} ({off})"
        for what, forecast, happened, off in map(Compared.in_words, compare(run))
    ]
    return [f"forecast of training: {'; '.join(told)}"] if told else []


def outlook(work: Work, forecast: Forecast | None) -> tuple[bool, str]:
    """Whether training may begin, and its forecast in words; None is for a run that is finished."""
    if forecast is None:
        return True, f"{work.subject.name}: nothing is left to train, all {work.settings.fit.epochs} epochs are there"
    against = objections(forecast, work.settings.forecast, work.settings.fit)
    return not against, "\n".join([f"{work.subject.name}: {forecast.in_words(work.settings.forecast)}", *against])


def agreed(work: Work) -> str:
    """What is recorded of a subject's consent, and which files must not be used any more."""
    lines = [f"consent: {consent.in_words(work.subject)}"]
    return "\n".join([*lines, *(f"{folder}: {why}" for folder, why in recalled_runs(work))])


def standing(standings: Sequence[Standing]) -> str:
    """A subject's stages: fresh or why not, what is kept, and why what is not kept is not."""
    rows: list[Sequence[str]] = [("stage", "kept", "dropped", "failed", "now")]
    for one in standings:
        states = [row.state for row in one.made.rows]
        counts = [str(states.count(state)) for state in ("kept", "dropped", "failed")]
        rows.append((one.step.noun, *counts, "fresh" if one.fresh else f"stale: {one.why}"))
    lines = _columns(rows)
    for one in standings:
        reasons = [row for row in one.made.rows if row.state != "kept"]
        # what a stage only passes on from the one before it is told once
        told = {(row.id, row.reason) for other in standings[: standings.index(one)] for row in other.made.rows}
        new = [row for row in reasons if (row.id, row.reason) not in told]
        if new:
            lines += ["", f"{one.step.noun} left out:", *(f"  {row.id}: {row.reason}" for row in new)]
    return "\n".join(lines)


def unsettled(work: Work) -> str:
    """The faces that nobody knows whose they are, and where a person says so; empty if there are none."""
    folder = work.store.subject(work.subject.name)
    said = people.read(folder).decisions  # those of them that the next run will know
    faces = [face for face in unsure(faces_of(work)) if face.id not in said]
    if not faces:
        return ""
    file = folder / people.FILE
    head = f"{len(faces)} unsure face{'s' if len(faces) > 1 else ''}, hidden; say whose in {file} ({', '.join(people.WORDS)}, or a name):"
    return "\n".join([head, *(f"  {face.id}: distance {face.distance:.3f}" for face in faces)])


def trigger_words(name: str, settings: Settings) -> str:
    """What a base model takes a name for, and rare trigger words made of it. Raises SettingsError."""
    found = trigger.at_hand(settings)
    rows = [
        (one.word, str(len(one.tokens) or "not checked"), " ".join(one.tokens))
        for one in trigger.offers(name, found, settings.check.max_trigger_tokens)
    ]
    return "\n".join(
        [trigger.judged(name, settings).in_words, "", *_columns([("trigger word", "tokens", "read as"), *rows])]
    )


def coverage(seen: Coverage) -> str:
    """What the crops show, line by line, and what to add."""
    rows: list[Sequence[str]] = [("face_crops show", "photos", "wanted", "share", "to do")]
    rows += [
        (cell.name, str(cell.there), str(cell.wanted or ""), seen.share_in_words(cell.name), cell.in_words())
        for cell in seen.cells
    ]
    return "\n".join(_columns(rows))


def all_settings(name: str) -> str:
    """Every setting of a recipe: `section.field = value`, then its sentence."""
    lines: list[str] = []
    for section_name, section in recipe(name):
        assert isinstance(section, Section)
        lines += ["", f"{section_name}: {type(section).__doc__}"]
        for field_name, field in type(section).model_fields.items():
            lines.append(f"  {section_name}.{field_name} = {_value(getattr(section, field_name))}")
            lines.append(f"      {field.description}")
    return "\n".join(lines[1:])


def _value(value: Any) -> str:
    return repr(list(value)) if isinstance(value, tuple) else repr(value)


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
