"""Which photos go on: each is measured once, then all are judged together."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lora_pipeline.errors import PhotoError
from lora_pipeline.manifest import Item, Made, Manifest, Outcome, Report, refresh
from lora_pipeline.pictures import open_upright
from lora_pipeline.progress import Progress, silent
from lora_pipeline.records import Photo, Quality, Row
from lora_pipeline.settings import CurateSettings
from lora_pipeline.stages.curate.copies import groups
from lora_pipeline.stages.curate.measure import Measured, measure

CODE_VERSION = "1"
MEASURED = "measured"
NEARLY = 0.8


def curate(source: Manifest, folder: Path, settings: CurateSettings, progress: Progress = silent) -> Outcome:
    """Measure every kept photo, drop what is not good enough, and keep the best of each group of copies.

    Args:
        source: `collect`'s manifest.
        folder: where this stage keeps its two tables: `measured` (a row a photo, reused whatever the thresholds) and
            `manifest` (what was decided).
        settings: thresholds.
        progress: told after each photo measured.

    Returns:
        A row for each row of `source`, in the record `Quality`; rows that `source` did not keep stay as they were, without
        data. The report counts photos measured and reused, and rows dropped and failed.
    """
    measuring = refresh(
        folder,
        # Of the settings only `trim_bars` changes what is measured.
        [
            Item(row.id, [Photo.of(row).digest, settings.trim_bars], _Job(row, settings.trim_bars))
            for row in source.kept
        ],
        _measure,
        settings=None,
        code_version=CODE_VERSION,
        name=MEASURED,
        what="photos measured",
        workers=0,
        progress=progress,
    )
    measured = {row.id: row for row in measuring.manifest.rows}
    left_out = {row.id: Made(state=row.state, reason=row.reason) for row in source.rows if row.state != "kept"}
    left_out |= {row.id: Made(state=row.state, reason=row.reason) for row in measured.values() if row.state != "kept"}
    judged = [_Judged.of(row, measured[row.id], settings) for row in source.kept if row.id not in left_out]
    decided = left_out | {one.id: one.made for one in _copies_judged(judged, settings)}
    outcome = refresh(
        folder,
        [Item(id, [made.state, made.reason, dict(made.data)], made) for id, made in decided.items()],
        lambda made, _: made,
        settings=None,
        code_version=CODE_VERSION,
        what="photos judged",
    )
    done, told = measuring.report, outcome.report
    report = Report(done.computed, done.reused, told.dropped, told.failed, done.seconds + told.seconds)
    return Outcome(outcome.manifest, report)


@dataclass(frozen=True)
class _Job:
    row: Row
    trim_bars: bool


def _measure(job: _Job, _folder: Path) -> Made:
    path = Path(Photo.of(job.row).path)
    try:
        picture = open_upright(path, max_megapixels=float("inf"))  # `collect` has judged its size
    except PhotoError as error:
        # It could be read a moment ago, so this will pass: an error that the memo does not keep.
        raise OSError(str(error)) from error
    return Made(measure(picture, path.stat().st_size, job.trim_bars).data())


@dataclass(frozen=True)
class _Judged:
    """A measured photo, and what speaks against it."""

    id: str
    quality: Quality
    measured: Measured
    faults: tuple[str, ...]

    @staticmethod
    def of(row: Row, measured_row: Row, settings: CurateSettings) -> "_Judged":
        photo, measured = Photo.of(row), Measured.of(measured_row)
        quality = Quality(
            photo.path,
            photo.digest,
            photo.width_px,
            photo.height_px,
            measured.trim,
            measured.sharpness,
            measured.brightness,
            measured.contrast,
            measured.phash,
            tags=photo.tags,
            known_faces=photo.known_faces,
        )
        return _Judged(row.id, quality, measured, tuple(_faults(quality, settings)))

    @property
    def pixels(self) -> int:
        """Inside the trim: bars count for nothing."""
        left, top, right, bottom = self.quality.trim
        return (right - left) * (bottom - top)

    @property
    def merit(self) -> float:
        """Pixels × sharpness."""
        return self.pixels * self.quality.sharpness

    @property
    def made(self) -> Made:
        return Made(self.quality.data(), state="dropped" if self.faults else "kept", reason="; ".join(self.faults))


def _faults(quality: Quality, settings: CurateSettings) -> list[str]:
    left, top, right, bottom = quality.trim
    side_px = min(right - left, bottom - top)
    faults: list[str] = []
    if side_px < settings.min_side_px:
        faults.append(f"too small: its short side of {side_px} px is under {settings.min_side_px}")
    if quality.sharpness < settings.min_sharpness:
        faults.append(f"blurred: sharpness {quality.sharpness:g} is under {settings.min_sharpness:g}")
    if quality.brightness < settings.min_brightness:
        faults.append(f"too dark: brightness {quality.brightness:g} is under {settings.min_brightness:g}")
    if quality.brightness > settings.max_brightness:
        faults.append(f"too bright: brightness {quality.brightness:g} is over {settings.max_brightness:g}")
    if quality.contrast < settings.min_contrast:
        faults.append(f"empty: contrast {quality.contrast:g} is under {settings.min_contrast:g}")
    return faults


def _copies_judged(judged: Sequence[_Judged], settings: CurateSettings) -> list[_Judged]:
    """The same photos, with `duplicates` filled and all but the best of each group faulted as its copies."""
    result = list(judged)
    for group in groups([one.measured for one in judged], settings.duplicate_distance):
        best = _best([judged[number] for number in group])
        for number in group:
            one = judged[number]
            copy = () if one is best or settings.keep_duplicates else (f"copy of {best.id}",)
            result[number] = replace(one, quality=replace(one.quality, duplicates=best.id), faults=one.faults + copy)
    return result


def _best(copies: Sequence[_Judged]) -> _Judged:
    """The copy to keep: one that is good enough, if any is, and of these the best.

    Best is pixels × sharpness. Pixels alone would prefer a small copy blown up again (seen: 0.3 to 0.8 of the original by this
    measure), sharpness alone a small copy (see `sharpness`). But a JPEG's noise is sharp too: the same shot saved at quality
    10 has 0.6 to 1.1 of the original. So what is nearly as good counts as equal; then more pixels decide, then the larger file,
    then the name.
    """
    fit = [one for one in copies if not one.faults] or copies
    most = max(one.merit for one in fit)
    equal = [one for one in fit if one.merit >= NEARLY * most]
    return min(equal, key=lambda one: (-one.pixels, -one.measured.file_bytes, one.id))
