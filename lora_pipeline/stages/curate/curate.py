"""Which photos go on: each is measured once, then all are judged together."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lora_pipeline.errors import PhotoError
from lora_pipeline.manifest import Item, Made, Manifest, Mapped, Outcome, Packed, Report, refresh
from lora_pipeline.pictures import open_upright
from lora_pipeline.progress import Progress, silent
from lora_pipeline.records import Photo, Quality, Row
from lora_pipeline.settings import CurateSettings
from lora_pipeline.stages.curate import flaws
from lora_pipeline.stages.curate.copies import groups
from lora_pipeline.stages.curate.measure import Measured, measure
from lora_pipeline.verdicts import Verdict

CODE_VERSION = "3"
MEASURED = "measured"
DROPPED = "dropped by hand"
NEARLY = 0.8  # of the most detail in a group: as much
SPREAD = 4  # lines of writing over more than half of a photo, from which on they are a watermark's
GREY = 3.0  # levels of 255 of tint, from which a photo of one tone is sepia
FULL = 0.87  # of the best copy's detail for its size: not blown up


def curate(
    source: Manifest,
    folder: Path,
    settings: CurateSettings,
    progress: Progress = silent,
    by_hand: Mapping[str, Verdict] | None = None,
) -> Outcome:
    """Measure every kept photo, drop what is not good enough, and keep the best of each group of copies.

    Args:
        source: `collect`'s manifest.
        folder: where this stage keeps its two tables: `measured` (a row a photo, reused whatever the thresholds) and
            `manifest` (what was decided).
        settings: thresholds.
        progress: told after each photo measured.
        by_hand: photo id → `keep` or `drop`, by a person, which wins: one kept has no faults and is no copy; one dropped is dropped.

    Returns:
        A row for each row of `source`, in the record `Quality`; rows that `source` did not keep stay as they were, without
        data. The report counts photos measured and reused, and rows dropped and failed.
    """
    measuring = refresh(
        folder,
        # Of the settings only `trim_bars` changes what is measured.
        Mapped(
            lambda row: Item(row.id, [Photo.of(row).digest, settings.trim_bars], _Job(row, settings.trim_bars)),
            source.kept,
        ),
        _measure,
        settings=None,
        code_version=CODE_VERSION,
        name=MEASURED,
        what="photos measured",
        workers=0,
        progress=progress,
    )
    done = measuring.report
    left_out, judged = _decided(source, measuring.manifest, settings, by_hand or {})
    del measuring  # so much is remembered of every photo that it is let go before the next table is begun
    outcome = refresh(
        folder,
        Mapped(_item, (*left_out, *judged)),
        lambda one, _: one.made,
        settings=None,
        code_version=CODE_VERSION,
        what="photos judged",
    )
    told = outcome.report
    report = Report(done.computed, done.reused, told.dropped, told.failed, done.seconds + told.seconds)
    return Outcome(outcome.manifest, report)


def _decided(
    source: Manifest, measuring: Manifest, settings: CurateSettings, by_hand: Mapping[str, Verdict]
) -> tuple[list["_LeftOut"], list["_Judged"]]:
    """The photos that could not be judged, and the others as they were judged, copies among them."""
    measured = {row.id: row for row in measuring.rows}
    left_out = [_LeftOut(row) for row in (*source.rows, *measured.values()) if row.state != "kept"]
    known = {one.id for one in left_out}
    judged = [
        _Judged.of(row, measured[row.id], settings, by_hand.get(row.id)) for row in source.kept if row.id not in known
    ]
    prints = (Measured.of(measured[one.id]) for one in judged)
    return left_out, _copies_judged(judged, prints, settings)


@dataclass(frozen=True, slots=True)
class _LeftOut:
    """A photo that is as it was in the table before."""

    row: Row

    @property
    def id(self) -> str:
        return self.row.id

    @property
    def made(self) -> Made:
        return Made(state=self.row.state, reason=self.row.reason)


def _item(one: "_LeftOut | _Judged") -> Item["_LeftOut | _Judged"]:
    made = one.made
    return Item(one.id, [made.state, made.reason, dict(made.data)], one)


@dataclass(frozen=True, slots=True)
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
class _Fault:
    """What speaks against a photo, and the words that a caption may say of it (none: such a photo is never kept)."""

    reason: str
    token: str = ""


@dataclass(frozen=True, slots=True)
class _Judged:
    """A measured photo, what speaks against it, and what its copies are held against it by.

    Args:
        id: the photo's.
        data: its `Quality`.
        faults: why it is not kept.
        weak: whether its captions say of its weaknesses.
        pixels: inside the trim: bars count for nothing.
        true_side_px, by_hand: as in `Quality`.
        fullness: detail for its size, 0 to 1.
        file_bytes: size of its file.
    """

    id: str
    data: Packed
    faults: tuple[str, ...]
    weak: bool
    pixels: int
    true_side_px: int
    by_hand: str
    fullness: float
    file_bytes: int

    @staticmethod
    def of(row: Row, measured_row: Row, settings: CurateSettings, by_hand: Verdict | None) -> "_Judged":
        photo, measured = Photo.of(row), Measured.of(measured_row)
        colour, tone = (round(level, 1) for level in flaws.colour(measured.small))
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
            true_side_px=measured.true_side_px,
            clipped_shadows=measured.clipped_shadows,
            clipped_highlights=measured.clipped_highlights,
            noise=measured.noise,
            blocking=measured.blocking,
            plain=measured.plain,
            text_boxes=measured.text_boxes,
            colour=colour,
            tone=tone,
        )
        faults = _faults(quality, settings)
        if settings.quality_tokens:
            quality = replace(quality, tokens=tuple(dict.fromkeys(fault.token for fault in faults if fault.token)))
            faults = [fault for fault in faults if not fault.token]
        if by_hand:
            quality = replace(quality, by_hand=by_hand)
            faults = [_Fault(DROPPED)] if by_hand == "drop" else []
        left, top, right, bottom = quality.trim
        return _Judged(
            row.id,
            Packed(quality.data()),
            tuple(fault.reason for fault in faults),
            weak=bool(quality.tokens),
            pixels=(right - left) * (bottom - top),
            true_side_px=quality.true_side_px,
            by_hand=quality.by_hand,
            fullness=quality.true_side_px / _short_side_px(quality),
            file_bytes=measured.file_bytes,
        )

    def copy_of(self, best: str, fault: tuple[str, ...]) -> "_Judged":
        """The same, of a group whose best photo is that one, and what speaks against it for that."""
        return replace(self, data=Packed({**self.data, "duplicates": best}), faults=self.faults + fault)

    @property
    def made(self) -> Made:
        return Made(self.data, state="dropped" if self.faults else "kept", reason="; ".join(self.faults))


def _short_side_px(quality: Quality) -> int:
    left, top, right, bottom = quality.trim
    return min(right - left, bottom - top)


def _faults(q: Quality, settings: CurateSettings) -> list[_Fault]:
    side_px = _short_side_px(q)
    faults: list[_Fault] = []
    if side_px < settings.min_side_px:
        faults.append(_Fault(f"too small: its short side of {side_px} px is under {settings.min_side_px}"))
    if q.true_side_px < settings.min_true_side_px:
        told = f"its detail fits into {q.true_side_px} px of short side, under {settings.min_true_side_px}"
        faults.append(_Fault(f"blown up or out of focus: {told}", "low resolution"))
    if q.sharpness < settings.min_sharpness:
        faults.append(_Fault(f"blurred: sharpness {q.sharpness:g} is under {settings.min_sharpness:g}", "blurry"))
    if q.brightness < settings.min_brightness:
        told = f"too dark: brightness {q.brightness:g} is under {settings.min_brightness:g}"
        faults.append(_Fault(told, "underexposed"))
    if q.brightness > settings.max_brightness:
        told = f"too bright: brightness {q.brightness:g} is over {settings.max_brightness:g}"
        faults.append(_Fault(told, "overexposed"))
    if q.contrast < settings.min_contrast:
        faults.append(_Fault(f"empty: contrast {q.contrast:g} is under {settings.min_contrast:g}"))
    if q.clipped_shadows > settings.max_clipped_shadows:
        told = f"underexposed: {q.clipped_shadows:.0%} of it is black, over {settings.max_clipped_shadows:.0%}"
        faults.append(_Fault(told, "underexposed"))
    if q.clipped_highlights > settings.max_clipped_highlights:
        told = f"overexposed: {q.clipped_highlights:.0%} of it is white, over {settings.max_clipped_highlights:.0%}"
        faults.append(_Fault(told, "overexposed"))
    if q.noise > settings.max_noise:
        faults.append(_Fault(f"noisy: noise of {q.noise:g} levels is over {settings.max_noise:g}", "noisy"))
    if q.blocking > settings.max_blocking:
        told = f"JPEG blocks: their excess of {q.blocking:g} is over {settings.max_blocking:g}"
        faults.append(_Fault(told, "jpeg artifacts"))
    if q.plain > settings.max_plain:
        told = f"a screenshot or a drawing: {q.plain:.0%} of its pixels equal their neighbours, over {settings.max_plain:.0%}"
        faults.append(_Fault(told))
    if q.colour < settings.min_colour:
        told = f"its colours lie {q.colour:g} levels from one tone, under {settings.min_colour:g}"
        sort = "black and white" if q.tone < GREY else "sepia"
        faults.append(_Fault(f"{sort}: {told}", sort))
    share = text_share(q)
    if share > settings.max_text:
        told = f"writing on it: {share:.1%} of it in {len(q.text_boxes)} lines, over {settings.max_text:.1%}"
        faults.append(_Fault(told, "watermark" if _all_over(q) else "text"))
    return faults


def text_share(q: Quality) -> float:
    """Share of the trimmed photo's area that lines of writing take, 0 to 1."""
    left, top, right, bottom = q.trim
    taken = sum((box[2] - box[0]) * (box[3] - box[1]) for box in q.text_boxes)
    return min(1.0, taken / ((right - left) * (bottom - top)))


def _all_over(q: Quality) -> bool:
    """Whether the writing stands in many places, as a watermark does that is repeated, and not in one."""
    lefts, tops, rights, bottoms = zip(*q.text_boxes, strict=True)
    across, down = max(rights) - min(lefts), max(bottoms) - min(tops)
    return len(q.text_boxes) >= SPREAD and across > (q.trim[2] - q.trim[0]) / 2 and down > (q.trim[3] - q.trim[1]) / 2


def _copies_judged(judged: Sequence[_Judged], prints: Iterable[Measured], settings: CurateSettings) -> list[_Judged]:
    """The same photos, with `duplicates` filled and all but the best of each group faulted as its copies."""
    result = list(judged)
    for group in groups(prints, settings.duplicate_distance):
        best = _best([judged[number] for number in group])
        for number in group:
            one = judged[number]
            stays = one is best or settings.keep_duplicates or one.by_hand
            result[number] = one.copy_of(best.id, () if stays else (f"copy of {best.id}",))
    return result


def _best(copies: Sequence[_Judged]) -> _Judged:
    """The copy to keep: one that a person keeps, else one that is good enough, if any is, and of these the one with the most detail.

    Detail is the true resolution, known to some 20 %. What has nearly as much counts as equal, but not what needs more pixels for it: that is the
    same photo blown up. Of the rest more pixels decide, then the larger file, since saving again at a lower quality costs
    detail that the spectrum does not show, then the name. A blow-up by less than 1.2 may win: it shows as much.
    """
    kept = [one for one in copies if one.by_hand == "keep"]
    fit = kept or [one for one in copies if not one.faults] or copies
    fit = [one for one in fit if not one.weak] or fit
    most = max(one.true_side_px for one in fit)
    equal = [one for one in fit if one.true_side_px >= NEARLY * most]
    fullest = max(one.fullness for one in equal)
    plain = [one for one in equal if one.fullness >= FULL * fullest]
    return min(plain, key=lambda one: (-one.pixels, -one.file_bytes, one.id))
