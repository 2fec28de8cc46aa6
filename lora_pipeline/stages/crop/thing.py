"""Where the pet or the product is: found by its name, cut out as a mask, each remembered a photo."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_pipeline.manifest import Item, Made, Manifest, Outcome, Report, key_of, refresh
from lora_pipeline.models.grounding_dino import GroundingDino
from lora_pipeline.models.sam import Sam
from lora_pipeline.pictures import open_upright, save
from lora_pipeline.progress import Progress
from lora_pipeline.records import Box, Quality
from lora_pipeline.settings import CropSettings
from lora_pipeline.stages.crop.framing import ALIKE, Cut, iou

THINGS_VERSION = "1"
THINGS, CUT_OUT = "things", "cut_out"
AROUND = 0.15
"""What a close crop shows around the thing on each side, as a share of its longer side."""


@dataclass(frozen=True)
class Things:
    """What was found.

    Args:
        boxes: a photo's id → the thing's box, pixels of the upright photo.
        reasons: a photo's id → why there is none.
        masks: a photo's id → a picture of the upright photo's size, 8-bit grey: 255 where the thing is, 0 where it is not; and
            its digest. Empty if no segmenter is asked.
        seconds: that it took.
    """

    boxes: Mapping[str, Box]
    reasons: Mapping[str, str]
    masks: Mapping[str, tuple[Path, str]]
    seconds: float


def find_things(
    photos: Mapping[str, Quality], folder: Path, settings: CropSettings, prompt: str, progress: Progress
) -> Things:
    """Look for what `prompt` says in each photo, and cut the surest find out, if a segmenter is named.

    Raises ModelError if a model is missing.
    """
    detector = GroundingDino.open(settings.subject_model, settings.subject_revision)
    identity, least_score = detector.identity, settings.subject_score
    found = refresh(
        folder,
        [
            Item(
                id,
                [photo.digest, list(photo.trim), identity, prompt, least_score],
                _Sought(Path(photo.path), photo.trim, detector, prompt, least_score),
            )
            for id, photo in photos.items()
        ],
        _find,
        settings=None,
        code_version=THINGS_VERSION,
        name=THINGS,
        what=f"look for {prompt}",
        progress=progress,
    )
    boxes = {row.id: _box(row.data["box"]) for row in found.manifest.kept}
    cut = _cut_out(photos, boxes, folder, settings, progress)
    return Things(
        boxes,
        {row.id: row.reason for row in found.manifest.rows if row.state != "kept"},
        {row.id: (cut.manifest.path(row, "mask"), row.files["mask"].digest) for row in cut.manifest.kept},
        found.report.seconds + cut.report.seconds,
    )


def _cut_out(
    photos: Mapping[str, Quality], boxes: Mapping[str, Box], folder: Path, settings: CropSettings, progress: Progress
) -> Outcome:
    if not settings.segment_model:
        return Outcome(Manifest(folder, ()), Report())
    segmenter = Sam.open(settings.segment_model, settings.segment_revision)
    identity = segmenter.identity
    items = [
        Item(
            id,
            [photos[id].digest, list(box), identity],
            _Found(Path(photos[id].path), box, segmenter, f"{CUT_OUT}/{key_of(id)[:16]}.png"),
        )
        for id, box in boxes.items()
    ]
    return refresh(
        folder,
        items,
        _segment,
        settings=None,
        code_version=THINGS_VERSION,
        name=CUT_OUT,
        what="cut the subject out",
        progress=progress,
    )


def with_close(cuts: Sequence[Cut], trim: Box, thing: Box, settings: CropSettings) -> list[Cut]:
    """The cuts, and a square about the thing with some of what is around it, if `framings` has `close`.

    The square is moved into `trim`, and made smaller where it is larger than that; never so small that it would cut the thing.
    """
    if "close" not in settings.framings:
        return list(cuts)
    longer = max(thing[2] - thing[0], thing[3] - thing[1])
    side = min(round(longer * (1 + 2 * AROUND)), trim[2] - trim[0], trim[3] - trim[1])
    left = min(max((thing[0] + thing[2] - side) // 2, trim[0]), trim[2] - side)
    top = min(max((thing[1] + thing[3] - side) // 2, trim[1]), trim[3] - side)
    region = (left, top, left + side, top + side)
    alike = next((cut.framing for cut in cuts if not cut.reason and iou(cut.region, region) > ALIKE), None)
    enlarged = settings.size_px / side
    reason = ""
    if side < longer:
        reason = "a square would cut the subject"
    elif enlarged > settings.max_enlargement:
        reason = f"would be enlarged {enlarged:.1f} times, the limit is {settings.max_enlargement:g}"
    elif alike:
        reason = f"shows nearly the same as the framing {alike}"
    return [*cuts, Cut("close", region, (settings.size_px, settings.size_px), reason)]


@dataclass(frozen=True)
class _Sought:
    photo: Path
    trim: Box
    detector: GroundingDino
    prompt: str
    least_score: float


@dataclass(frozen=True)
class _Found:
    photo: Path
    box: Box
    segmenter: Sam
    file: str


def _find(sought: _Sought, _: Path) -> Made:
    finds = sought.detector.find(open_upright(sought.photo).crop(sought.trim), sought.prompt, sought.least_score)
    if not finds:
        return Made(state="dropped", reason=f"no {sought.prompt} is found (crop.subject_score: {sought.least_score:g})")
    (left, top, right, bottom), score = finds[0]
    x, y = sought.trim[:2]
    return Made({"box": [left + x, top + y, right + x, bottom + y], "score": score, "finds": len(finds)})


def _segment(found: _Found, folder: Path) -> Made:
    from PIL import Image

    mask = found.segmenter.mask(open_upright(found.photo), found.box)
    save(Image.fromarray(mask).convert("L"), folder / found.file)
    left, top, right, bottom = found.box
    return Made({"share_of_box": round(float(mask[top:bottom, left:right].mean()), 3)}, {"mask": found.file})


def _box(value: object) -> Box:
    assert isinstance(value, list)
    left, top, right, bottom = (int(side) for side in value)
    return left, top, right, bottom
